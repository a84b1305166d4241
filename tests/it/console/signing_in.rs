//! Signing in and out, languages, and what is sent along with every page.

use serde_json::Value;

use super::Scene;
use crate::harness::raw;

#[test]
fn a_wrong_password_is_refused_and_the_right_one_leads_to_the_page_that_was_asked_for() {
    let scene = Scene::new();
    let browser = &scene.browser;
    scene.open("/console/usage?range=7d");
    browser.arrives_at("/console/sign-in");
    browser.fill("#email", &scene.demo.facts.email);
    browser.fill("#password", "not the password");
    browser.click("button[type=submit]");
    browser.reads(".failure", "not right");
    browser.fill("#password", &scene.demo.facts.password);
    browser.press("\u{e007}");
    browser.arrives_at("/console/usage");
    assert_eq!(browser.path(), "/console/usage?range=7d");
    browser.click("[data-act=sign-out]");
    browser.arrives_at("/console/sign-in");
    scene.open("/console/keys");
    browser.arrives_at("/console/sign-in");
    scene.has_no_complaints();
}

#[test]
fn a_session_that_is_over_leads_to_the_sign_in_page_also_from_a_dialog() {
    let scene = Scene::signed_in();
    let token = scene.token();
    scene.browser.click("#create");
    raw::api(scene.demo.control(), "DELETE", "/v1/sessions", &token, &Value::Null);
    scene.browser.click("#create-key [type=submit]");
    scene.browser.arrives_at("/console/sign-in");
    scene.has_no_complaints();
}

#[test]
fn the_language_is_the_browsers_until_the_switch_says_otherwise() {
    let scene = Scene::in_language("zh-CN");
    let browser = &scene.browser;
    scene.open("/");
    browser.arrives_at("/console/sign-in");
    assert_eq!(browser.text("h1"), "登录");
    browser.click(".who a");
    browser.arrives_at("/console/sign-in");
    assert_eq!(
        (browser.text("h1").as_str(), browser.run("return document.documentElement.lang").as_str()),
        ("Sign in", Some("en"))
    );
    browser.click(".who a");
    browser.reads("h1", "登录");
    browser.fill("#email", &scene.demo.facts.email);
    browser.fill("#password", &scene.demo.facts.password);
    browser.press("\u{e007}");
    browser.arrives_at("/console/keys");
    assert_eq!(browser.text("h1"), "API 密钥管理");
    browser.click("#create");
    browser.click("#create-key [type=submit]");
    browser.reads("#create-key [data-step=done]", "密钥已创建");
    scene.has_no_complaints();
}

#[test]
fn pages_are_never_stored_and_files_for_ever() {
    let scene = Scene::new();
    let page = raw::call(scene.demo.control(), "GET", "/console/sign-in", &[], b"");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let policy = page.header("content-security-policy").unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
    {
        assert!(policy.contains(part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"));
    let text = page.text();
    assert!(!text.contains(" style=") && !text.contains("<style") && !text.contains(" onclick="));
    for file in text.split('"').filter(|part| part.starts_with("/console/assets/")) {
        let answer = raw::call(scene.demo.control(), "GET", file, &[], b"");
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, Some("public, max-age=31536000, immutable")),
            "{file}"
        );
    }
    let other = raw::call(scene.demo.control(), "GET", "/console/assets/console-0.js", &[], b"");
    assert_eq!(other.status, 404);
}

#[test]
fn a_link_on_another_site_leads_to_the_page_of_whoever_is_signed_in() {
    let scene = Scene::signed_in();
    let link = format!("<a id=link href='{}'>go</a>", scene.url("/console/clusters"));
    scene.browser.go(&format!("data:text/html,{link}"));
    scene.browser.click("#link");
    scene.browser.arrives_at("/console/clusters");
    scene.has_no_complaints();
}
