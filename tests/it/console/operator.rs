//! The operator's view in the browser.

use serde_json::json;

use super::Scene;

#[test]
fn the_operator_suspends_resumes_verifies_and_sees_the_gateways() {
    let scene = Scene::new();
    let browser = &scene.browser;
    let key = scene.demo.key().to_owned();
    scene.operator(
        "POST",
        "/v1/accounts",
        &json!({"email": "new@demo.test", "password": "a password", "name": "Newcomer"}),
    );
    scene.open("/console/operator");
    browser.arrives_at("/console/operator/sign-in");
    browser.fill("#token", "not the operator's token");
    browser.click("[type=submit]");
    browser.reads(".failure", "not right");
    browser.fill("#token", &scene.demo.facts.operator_token);
    browser.click("[type=submit]");
    browser.arrives_at("/console/operator");
    let row = format!("#{}", scene.demo.facts.account_id);
    let press = |row: &str, field: &str, value: &str| {
        browser.click(&format!("{row} [data-field={field}][data-value={value}]"));
        browser.click("#change-account [type=submit]");
    };
    press(&row, "status", "suspended");
    browser.reads(&row, "Suspended");
    assert_eq!(scene.call(&key), 403);
    press(&row, "status", "active");
    browser.reads(&row, "Active");
    assert_eq!(scene.call(&key), 200);
    let newcomer = browser
        .run("return [...document.querySelectorAll('tbody tr')].find((row) => row.innerText.includes('Newcomer')).id");
    let newcomer = format!("#{}", newcomer.as_str().unwrap());
    browser.reads(&newcomer, "Not verified");
    press(&newcomer, "verified", "true");
    browser.until("verified", || !browser.text(&newcomer).contains("Not verified"));
    browser.click(&format!("{newcomer} [data-open=limits]"));
    browser.fill("#active-max", "7");
    browser.click("#limits [type=submit]");
    browser.reads(&newcomer, "7 active keys");
    scene.open("/console/operator/gateways");
    browser.reads("main", "every gateway has a good lease");
    scene.open("/console/operator/audit");
    browser.reads("main", "Account changed");
    // The operator is nobody of the account.
    scene.open("/console/keys");
    browser.reads("main", "You may not do that");
    scene.open("/console/operator");
    browser.click("[data-act=operator-sign-out]");
    browser.arrives_at("/console/operator/sign-in");
    scene.open("/console/operator");
    browser.arrives_at("/console/operator/sign-in");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|one| one.contains("status of 40")), "{complaints:?}");
}

#[test]
fn an_owner_is_not_the_operator() {
    let scene = Scene::signed_in();
    scene.open("/console/operator");
    scene.browser.arrives_at("/console/operator/sign-in");
    let answer = scene.fetch("GET", "/v1/accounts", &serde_json::Value::Null);
    assert_eq!(answer["status"], 403);
}
