//! Who is led where, without a browser: with an API that answers as the test wants.

use axum::Json;
use axum::body::Body;
use http::Request;
use http::header::COOKIE;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::json;

use super::*;

/// An API whose session belongs to the cookie `root` or `member`, and whose lists are empty.
fn api() -> Router {
    async fn session(headers: http::HeaderMap) -> Response {
        let cookie = headers.get(COOKIE).map(HeaderValue::as_bytes).unwrap_or_default();
        let role = match cookie {
            b"root" | b"old" => "root",
            b"member" => "member",
            _ => return problem(StatusCode::UNAUTHORIZED, "unauthenticated"),
        };
        let facts = json!({"role": role, "email": "<b>@x", "account_id": "acc_a", "verified": false, "status": "active", "utc_offset": "+08:00"});
        Json(facts).into_response()
    }
    let keys = json!({"keys": [], "active": 0, "active_max": 3, "created_today": 0, "daily_max": 10, "resets_at": "2026-01-01T16:00:00Z"});
    Router::new()
        .route("/v1/session", get(session))
        .route(
            "/v1/keys",
            get(|headers: http::HeaderMap| async move {
                let mut list = keys;
                if headers.get(COOKIE).is_some_and(|cookie| cookie == "old") {
                    let old = |name, used: Option<&str>| json!({"id": name, "name": name, "masked": "dvk_", "status": "active", "created_at": "2020-01-01T00:00:00Z", "last_used_at": used});
                    list["keys"] = json!([old("forgotten", Some("2020-02-01T00:00:00Z")), old("unused", None), old("busy", Some("2999-01-01T00:00:00Z"))]);
                }
                Json(list)
            }),
        )
        .route("/v1/accounts/{id}/clusters", get(|| async { Json(json!({"items": [], "next": null})) }))
        .route("/v1/usage/records", get(|| async { "" }))
        .route("/v1/audit", get(|| async { problem(StatusCode::SERVICE_UNAVAILABLE, "store_away") }))
}

fn problem(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({"code": code}))).into_response()
}

async fn ask(path: &str, headers: &[(&str, &str)]) -> (Response<()>, String) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let answer = TowerToHyperService::new(routes(api())).call(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), String::from_utf8_lossy(&text).into_owned())
}

type Response<T = Body> = http::Response<T>;

#[tokio::test]
async fn a_stranger_is_led_to_sign_in_and_back_to_where_they_wanted() {
    let (answer, _) = ask("/console/usage?range=7d", &[]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(answer.headers()[LOCATION], "/console/sign-in?next=%2Fconsole%2Fusage%3Frange%3D7d");
    let (answer, text) = ask("/console/usage", &[("sec-fetch-site", "cross-site")]).await;
    assert!(answer.status() == StatusCode::OK && text.contains("http-equiv=\"refresh\""));
    let (_, text) = ask("/console/sign-in?next=https://evil.example", &[]).await;
    assert!(text.contains("data-next=\"/console/keys\"") && !text.contains("https://evil"));
}

#[tokio::test]
async fn what_the_api_says_stands_in_the_page_and_is_never_markup() {
    let (answer, text) = ask("/console/keys", &[("cookie", "root")]).await;
    assert_eq!(answer.headers()[CONTENT_SECURITY_POLICY], POLICY);
    assert!(text.contains("&lt;b&gt;@x") && !text.contains("<b>@x"));
    assert!(text.contains("is not verified yet") && text.contains("aria-describedby=\"create-why\""));
    let (_, text) = ask("/console/keys", &[("cookie", "member")]).await;
    assert!(!text.contains("<dialog") && !text.contains("data-open"));
}

#[tokio::test]
async fn a_key_that_nobody_used_for_90_days_has_a_banner() {
    let (_, text) = ask("/console/keys", &[("cookie", "old")]).await;
    let banners = |name: &str| text.matches(&format!("<strong>{name}</strong> has not been used for 90 days")).count();
    assert_eq!((banners("forgotten"), banners("unused"), banners("busy")), (1, 1, 0));
}

#[tokio::test]
async fn a_store_that_is_away_is_said_and_is_no_page_of_the_browser() {
    let (answer, text) = ask("/console/audit", &[("cookie", "root")]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("The store cannot be reached") && text.contains("store_away"));
}

#[tokio::test]
async fn the_language_switch_goes_back_to_pages_of_ours_alone() {
    for (back, to) in [("/console/audit", "/console/audit"), ("https://evil.example", KEYS), ("//evil.example", KEYS)] {
        let (answer, _) = ask(&format!("/console/language?to=zh&back={}", elements::escaped(back)), &[]).await;
        assert_eq!(answer.headers()[LOCATION], to);
        assert!(answer.headers()[SET_COOKIE].to_str().unwrap().starts_with("tollgate-language=zh-CN;"));
    }
}
