//! Usage, clusters and the audit log in the browser.

use serde_json::json;

use super::Scene;
use crate::harness::browser::Browser;
use crate::harness::raw;

#[test]
fn calls_are_seen_as_numbers_as_a_chart_as_a_table_and_as_csv() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    let key = scene.demo.key().to_owned();
    for _ in 0..3 {
        assert_eq!(scene.call(&key), 200);
    }
    let headers = [("dashvector-auth-token", key.as_str())];
    raw::call(scene.demo.gateway(), "GET", "/v1/collections/missing", &headers, b"");
    browser.until("four calls are there", || {
        scene.open("/console/usage");
        browser.text(".figures dd") == "4"
    });
    assert_eq!(browser.count(".chart .bucket.provisional rect.ok"), 1);
    browser.click(".chart .numbers summary");
    let row = browser.text(".chart .numbers tbody tr");
    assert!(row.contains("provisional") && row.contains('3'), "{row}");
    browser.reads("main", "list_collections");
    let csv = browser.run_async("fetch(document.querySelector('a[download]').href).then((answer) => answer.text())");
    is_what_is_shown(browser, csv.as_str().unwrap());
    let choose = |field: &str, value: &str| {
        let script = format!(
            "const f = document.querySelector('#{field}'); f.value = {value:?}; f.dispatchEvent(new Event('change', {{bubbles: true}}))"
        );
        browser.run(&script);
    };
    choose("range", "30d");
    browser
        .until("thirty days are shown", || browser.path().contains("range=30d") && browser.count(".bucket") == 30 * 4);
    choose("key", "");
    browser.reads("main", "Days end at midnight UTC+8");
    scene.has_no_complaints();
}

/// Each operation's row of the page has the sums of the file's lines about it, and the file has no other operation.
fn is_what_is_shown(browser: &Browser, csv: &str) {
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let lines: Vec<_> = lines.collect();
    let column =
        |name: &str| head.iter().position(|known| *known == name).unwrap_or_else(|| panic!("{name}: {head:?}"));
    let sum = |operation: &str, sku: &str, outcomes: &[&str]| -> u64 {
        let own = lines.iter().filter(|line| line[column("x_Operation")] == operation && line[column("SkuId")] == sku);
        let picked = own.filter(|line| outcomes.contains(&line[column("x_Outcome")]));
        picked.map(|line| line[column("ConsumedQuantity")].parse::<u64>().unwrap()).sum()
    };
    let script = "return [...document.querySelectorAll('section.card')[0].querySelectorAll('tbody tr')]
        .map((row) => [...row.children].map((cell) => cell.textContent.replaceAll('\u{202f}', '')))";
    let shown = browser.run(script);
    let shown = shown.as_array().unwrap();
    for row in shown {
        let operation = row[0].as_str().unwrap();
        let calls = |outcomes: &[&str]| sum(operation, "calls", outcomes);
        let failed = calls(&["upstream_error", "timeout", "client_abort", "aborted"]);
        let expected = [calls(&["ok"]), calls(&["refused"]), failed];
        let units = ["read_units", "write_units"].map(|sku| sum(operation, sku, &[""]));
        let cells: Vec<u64> = (1..7).map(|at| row[at].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(cells[0], expected.iter().sum::<u64>(), "{row} {csv}");
        assert_eq!((&cells[1..4], &cells[4..]), (&expected[..], &units[..]), "{row} {csv}");
    }
    let operations: std::collections::BTreeSet<_> = lines.iter().map(|line| line[column("x_Operation")]).collect();
    assert!(shown.len() >= 2 && operations.len() == shown.len(), "{csv}");
}

#[test]
fn the_allow_list_is_edited_and_in_force() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    let key = scene.demo.key().to_owned();
    scene.open("/console/clusters");
    browser.reads("main", &scene.demo.facts.gateway);
    let set = |ips: &str| {
        browser.click("[data-open=allow-list]");
        browser.fill("#allow-ips", ips);
        browser.click("#allow-list [type=submit]");
    };
    set("everybody");
    browser.reads("#allow-list .failure", "not valid");
    browser.press("\u{e00c}");
    set("203.0.113.7, 10.0.0.0/8");
    browser.reads(".tags", "10.0.0.0/8");
    assert_eq!(scene.call(&key), 403);
    set("");
    browser.until("the page is a new one", || browser.count("#allow-list[open]") == 0);
    browser.reads("main", "every address");
    assert_eq!(scene.call(&key), 200);
    scene.open("/console/audit");
    browser.reads("main", "Cluster changed");
    browser.reads("main", "Signed in");
    scene.has_no_complaints();
}

#[test]
fn a_long_audit_log_is_read_page_by_page() {
    let scene = Scene::signed_in();
    let path = format!("/v1/accounts/{}", scene.demo.facts.account_id);
    for limit in 3..60 {
        scene.operator("PATCH", &path, &json!({"active_max": limit}));
    }
    scene.open("/console/audit");
    assert_eq!(scene.browser.count("tbody tr"), 50);
    scene.browser.click(".pager a[href*=cursor]");
    scene.browser.reads("main", "Account created");
    scene.browser.click(".pager a");
    scene.browser.until("the newest again", || !scene.browser.path().contains("cursor"));
}
