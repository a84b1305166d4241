//! The keys' page: create, view, edit, rotate, delete, and what stands in the way.

use serde_json::{Value, json};

use super::Scene;
use crate::harness::raw;

#[test]
fn a_key_that_was_created_is_shown_once_with_a_snippet_that_works() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    browser.reads("#quota", "1 of 3 active · 1 of 10 created today");
    browser.click("#create");
    browser.fill("#create-name", "ci & <b>tests</b>");
    browser.click("#create-key [type=submit]");
    let key = browser.reads("#create-key [data-key]", "dvk_").trim().to_owned();
    assert_eq!(scene.call(&key), 200);
    let snippet = browser.text("#created-curl code");
    assert!(snippet.contains(&key) && snippet.contains(&scene.demo.facts.gateway), "{snippet}");
    browser.click("#created-python-tab");
    assert!(browser.text("#created-python code").contains(&key));
    browser.press("\u{e012}");
    assert!(browser.is_shown("#created-curl"), "arrow keys move between the tabs");
    browser.devtools(
        "Browser.grantPermissions",
        &json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}),
    );
    browser.click("#create-key [data-copy-key]");
    browser.reads("#create-key [data-copy-key]", "Copied");
    assert_eq!(browser.run_async("navigator.clipboard.readText()"), json!(key));
    browser.click("#create-key [data-step=done] [data-close]");
    browser.reads("#quota", "2 of 3 active · 2 of 10 created today");
    browser.reads(".keys", "ci & <b>tests</b>");
    assert!(!browser.run("return document.documentElement.outerHTML").as_str().unwrap().contains(&key));
    scene.has_no_complaints();
}

#[test]
fn viewing_takes_a_fresh_code_each_time_and_closing_hides_the_key() {
    let mut scene = Scene::signed_in();
    let key = scene.demo.key().to_owned();
    scene.browser.click("[data-open=view-key]");
    scene.browser.fill("#view-code", &scene.codes.wrong());
    scene.browser.click("#view-key [type=submit]");
    scene.browser.reads("#view-key .failure", "The code is wrong.");
    scene.browser.fill("#view-code", &scene.codes.early().next());
    scene.browser.press("\u{e007}");
    scene.browser.reads("#view-key [data-key]", &key);
    scene.browser.reads("#view-key [data-hides]", "Hides in");
    scene.browser.press("\u{e00c}");
    scene.browser.until("the key is gone", || {
        !scene.browser.run("return document.body.innerHTML").as_str().unwrap().contains(&key)
    });
    scene.browser.click("[data-open=view-key]");
    scene.browser.reads("#view-key .countdown", "next code comes in");
    scene.browser.fill("#view-code", &scene.codes.last());
    scene.browser.click("#view-key [type=submit]");
    scene.browser.reads("#view-key .failure", "used already. The next code comes in");
    assert!(scene.browser.run("return document.querySelector('#view-key [type=submit]').disabled") == true);
    scene.browser.press("\u{e00c}");
    scene.browser.click("[data-open=view-key]");
    scene.browser.run("document.querySelector('#view-key [type=submit]').disabled = false");
    scene.browser.fill("#view-code", &scene.codes.next());
    scene.browser.click("#view-key [type=submit]");
    scene.browser.reads("#view-key [data-key]", &key);
    scene.has_no_complaints();
}

#[test]
fn a_delete_takes_the_word_and_a_code_and_its_receipt_holds() {
    let mut scene = Scene::signed_in();
    let key = scene.demo.key().to_owned();
    assert_eq!(scene.call(&key), 200);
    // When a key was last used is told a little later than its calls.
    scene.browser.until("the call is in the list", || {
        scene.open("/console/keys");
        scene.browser.text(".keys .figure") == "1" && scene.browser.text(".keys").contains("just now")
    });
    scene.browser.click("[data-open=delete-key]");
    scene.browser.reads("#delete-key .facts", "just now");
    scene.browser.reads("#delete-key .banner", "was used in the last 24 hours");
    scene.browser.fill("#delete-word", "dem");
    let code = scene.codes.next();
    scene.browser.fill("#delete-code", &code);
    scene.browser.click("#delete-key [type=submit]");
    scene.browser.reads("#delete-key .failure", "exactly");
    assert_eq!(scene.call(&key), 200, "nothing has happened yet");
    scene.browser.fill("#delete-word", "demo");
    scene.browser.click("#delete-key [type=submit]");
    let receipt = scene.browser.reads("#delete-key [data-receipt]", "Denied on 1 of 1 gateway in ");
    assert_eq!(scene.call(&key), 401, "{receipt}");
    scene.browser.click("#delete-key [data-step=done] [data-close]");
    scene.browser.reads("#quota", "0 of 3 active · 1 of 10 created today");
    scene.browser.reads("main", "No keys yet");
    scene.browser.click("main a[href*=deleted]");
    scene.browser.reads(".keys", "demo");
    scene.has_no_complaints();
}

#[test]
fn at_three_of_three_and_at_the_limit_of_the_day_the_button_says_why() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    let token = scene.token();
    scene.create_key(&token, "two");
    // The page is from before the last key: the API refuses, and the dialog says why.
    browser.click("#create");
    scene.create_key(&token, "three");
    browser.click("#create-key [type=submit]");
    browser.reads("#create-key .failure", "as many keys as it may have");
    scene.open("/console/keys");
    browser.reads("#quota", "3 of 3 active");
    browser.reads("#create-why", "All 3 keys are in use");
    assert!(browser.run("return document.querySelector('#create').disabled") == true);
    scene.operator(
        "PATCH",
        &format!("/v1/accounts/{}", scene.demo.facts.account_id),
        &json!({"active_max": 5, "daily_max": 3}),
    );
    scene.open("/console/keys");
    browser.reads("#create-why", "3 of 3 keys were created today. More from");
    let until = browser.run("return document.querySelector('#create-why time').dateTime");
    let list = raw::api(scene.demo.control(), "GET", "/v1/keys", &token, &Value::Null).json();
    assert_eq!(until, list["resets_at"]);
    assert!(browser.run("return document.querySelector('#create').disabled") == true);
    scene.has_no_complaints();
}

#[test]
fn a_member_sees_no_buttons_and_gets_403_by_hand() {
    let scene = Scene::new();
    let (token, id) = (scene.token(), &scene.demo.facts.account_id);
    let member = json!({"email": "member@demo.test", "password": "member password"});
    raw::api(scene.demo.control(), "POST", &format!("/v1/accounts/{id}/members"), &token, &member);
    scene.sign_in("member@demo.test", "member password");
    let browser = &scene.browser;
    browser.reads(".keys", "demo");
    browser.reads(".banner", "Its root user creates");
    assert_eq!(
        (browser.count("main button"), browser.count("dialog"), browser.count("a[href='/console/audit']")),
        (0, 0, 0)
    );
    let key = browser.run("return document.querySelector('.keys tbody tr').id").as_str().unwrap().to_owned();
    for (method, path, body) in [
        ("POST", "/v1/keys".to_owned(), json!({})),
        ("DELETE", format!("/v1/keys/{key}"), Value::Null),
        ("PATCH", format!("/v1/keys/{key}"), json!({"name": "mine"})),
        ("POST", format!("/v1/keys/{key}/view"), Value::Null),
        ("POST", "/v1/step-up".to_owned(), json!({"action": "view", "key_id": key, "code": "000000"})),
    ] {
        let answer = scene.fetch(method, &path, &body);
        assert_eq!(answer["status"], 403, "{method} {path}: {answer}");
        assert!(answer["body"].as_str().unwrap().contains("root_only"), "{answer}");
    }
    scene.open("/console/audit");
    browser.reads("h1", "Not possible");
    for page in ["clusters", "usage", "account"] {
        scene.open(&format!("/console/{page}"));
        browser.arrives_at(&format!("/console/{page}"));
    }
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|one| one.contains("status of 403")), "{complaints:?}");
}

#[test]
fn a_request_without_the_csrf_token_changes_nothing() {
    let scene = Scene::signed_in();
    let answer = scene.browser.run_async("fetch('/v1/keys', {method: 'POST'}).then((answer) => answer.json())");
    assert_eq!(answer["code"], "cross_site");
    assert!(
        scene.browser.run("return document.cookie.includes('__Host-tollgate=')") == false,
        "no script reads the session"
    );
}

#[test]
fn a_key_is_renamed_disabled_and_enabled() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    let key = scene.demo.key().to_owned();
    let edit = |name: &str, toggle: bool| {
        browser.click("[data-open=edit-key]");
        browser.fill("#edit-name", name);
        if toggle {
            browser.click("#edit-key [name=disabled]");
        }
        browser.click("#edit-key [type=submit]");
        browser.reads(".keys", name);
    };
    edit("renamed", true);
    browser.reads(".keys", "Disabled");
    assert_eq!(scene.call(&key), 401);
    edit("again", true);
    browser.reads(".keys", "Active");
    assert_eq!(scene.call(&key), 200);
    browser.click("[data-open=edit-key]");
    browser.run("document.querySelector('#edit-expires').value = '2999-01-02T03:04'");
    browser.click("#edit-key [type=submit]");
    browser.reads(".keys", "2999");
    let keys = raw::api(scene.demo.control(), "GET", "/v1/keys", &scene.token(), &Value::Null).json();
    assert_eq!(keys["keys"][0]["expires_at"], "2999-01-01T19:04:00Z", "the account's zone is UTC+8");
    scene.has_no_complaints();
}

#[test]
fn an_old_key_that_is_still_used_is_not_quiet_yet() {
    let scene = Scene::signed_in();
    let (token, old) = (scene.token(), scene.demo.key().to_owned());
    let new = scene.create_key(&token, "new");
    assert_eq!((scene.call(&old), scene.call(new["key"].as_str().unwrap())), (200, 200));
    let id = scene.browser.run("return document.querySelector('.keys tbody tr').id");
    scene.open(&format!("/console/rotate?old={}&new={}", id.as_str().unwrap(), new["id"].as_str().unwrap()));
    scene.browser.reads(".steps .now", "See the old key go quiet");
    assert_eq!(scene.browser.count("[data-open=delete-key]"), 0, "deleting it now would break calls");
    scene.has_no_complaints();
}

#[test]
fn a_key_is_rotated_step_by_step() {
    let mut scene = Scene::signed_in();
    let old = scene.demo.key().to_owned();
    scene.browser.click("a[href*=rotate]");
    scene.browser.arrives_at("/console/rotate");
    scene.browser.click(".steps [data-open=create-key]");
    scene.browser.click("#create-key [type=submit]");
    let new = scene.browser.reads("#create-key [data-key]", "dvk_").trim().to_owned();
    scene.browser.click("#create-key [data-step=done] [data-close]");
    scene.browser.reads(".steps .now", "See the first call");
    assert_eq!(scene.call(&new), 200);
    scene.browser.reads(".steps .now", "Delete the old key");
    scene.browser.click(".steps [data-open=delete-key]");
    scene.browser.fill("#delete-word", "demo");
    scene.browser.fill("#delete-code", &scene.codes.next());
    scene.browser.click("#delete-key [type=submit]");
    scene.browser.reads("#delete-key [data-receipt]", "Denied on 1 of 1");
    assert_eq!((scene.call(&old), scene.call(&new)), (401, 200));
    scene.browser.click("#delete-key [data-step=done] [data-close]");
    scene.browser.reads(".steps", "the old key is deleted");
    scene.has_no_complaints();
}
