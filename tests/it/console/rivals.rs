//! Two browsers, and two clicks, that want the same thing: one of them has it, the other one is told why not.

use serde_json::{Value, json};

use super::{Scene, sign_in};
use crate::harness::PATIENCE;
use crate::harness::browser::{Browser, within};
use crate::harness::raw;

/// Both press "Create key" at the same time. What the one says that does not win.
fn fight(url: &str, browsers: [&Browser; 2]) -> String {
    for browser in browsers {
        browser.go(&format!("{url}/console/keys"));
        browser.click("#create");
        browser.until("the dialog is open", || browser.is_shown("#create-name"));
    }
    std::thread::scope(|scope| {
        for browser in browsers {
            scope.spawn(|| browser.click("#create-key [type=submit]"));
        }
    });
    let said = |browser: &Browser| {
        let mut said = (String::new(), String::new());
        let script = "const read = (what) => document.querySelector(`#create-key ${what}`).textContent; \
                      return [read('[data-key]'), read('.failure')]";
        let answered = within(PATIENCE, || {
            let read = browser.run(script);
            said = (read[0].as_str().unwrap().to_owned(), read[1].as_str().unwrap().to_owned());
            said != (String::new(), String::new())
        });
        assert!(answered, "nothing is said");
        said
    };
    let [(one, one_fails), (other, other_fails)] = browsers.map(said);
    assert_eq!([one, other].iter().filter(|key| key.starts_with("dvk_")).count(), 1);
    one_fails + &other_fails
}

#[test]
fn of_two_browsers_one_gets_the_last_slot_and_the_last_creation_of_the_day() {
    let scene = Scene::signed_in();
    let other = Browser::start("en");
    let facts = &scene.demo.facts;
    sign_in(&other, &facts.control, &facts.email, &facts.password);
    scene.create_key(&scene.token(), "two");
    let says = fight(&facts.control, [&scene.browser, &other]);
    assert!(says.contains("as many keys as it may have"), "{says}");
    let limits = json!({"active_max": 5, "daily_max": 4});
    scene.operator("PATCH", &format!("/v1/accounts/{}", facts.account_id), &limits);
    let says = fight(&facts.control, [&scene.browser, &other]);
    assert!(says.contains("As many keys were created today as may be. More from"), "{says}");
    for browser in [&scene.browser, &other] {
        browser.go(&scene.url("/console/keys"));
        browser.reads("#quota", "4 of 5 active · 4 of 4 created today");
    }
}

#[test]
fn a_form_that_is_sent_twice_makes_one_key() {
    let scene = Scene::signed_in();
    scene.browser.click("#create");
    scene
        .browser
        .run("const form = document.querySelector('#create-key form'); form.requestSubmit(); form.requestSubmit()");
    scene.browser.reads("#create-key [data-key]", "dvk_");
    let keys = || raw::api(scene.demo.control(), "GET", "/v1/keys", &scene.token(), &Value::Null).json();
    assert_eq!(keys()["created_today"], 2);
    scene.browser.click("#create-key [data-step=done] [data-close]");
    scene.browser.reads("#quota", "2 of 3 active · 2 of 10 created today");
    scene.has_no_complaints();
}
