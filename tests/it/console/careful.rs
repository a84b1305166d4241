//! What a careful person looks for: that keys do not stay on the screen, that nothing is run that somebody typed, that the keyboard
//! suffices, that every text is translated.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{PRESS_ENTER, PRESS_ESCAPE, PRESS_TAB, STEP, Scene, cookie};
use crate::harness::raw;

#[test]
fn a_key_that_is_viewed_leaves_the_page_after_a_minute() {
    let mut scene = Scene::signed_in();
    let key = scene.demo.key().to_owned();
    let holds_key =
        |scene: &Scene| scene.browser.run("return document.documentElement.outerHTML").as_str().unwrap().contains(&key);
    scene.browser.click("[data-open=view-key]");
    scene.browser.fill("#view-code", &scene.codes.next());
    scene.browser.press(PRESS_ENTER);
    scene.browser.reads("#view-key [data-key]", &key);
    // The page's own clock is moved on instead of waiting.
    scene.browser.run("const now = Date.now; let ahead = 30_000; Date.now = () => now() + ahead; window.wait = (more) => { ahead += more; }");
    scene.browser.until("the seconds go down", || {
        let left = scene.browser.text("#view-key [data-hides]");
        left.split(' ').nth(2).and_then(|left| left.parse::<u8>().ok()).is_some_and(|left| left <= 30)
    });
    assert!(holds_key(&scene));
    scene.browser.run("window.wait(30_000)");
    scene.browser.until("the key is gone", || !holds_key(&scene));
    assert_eq!(scene.browser.count("dialog[open]"), 0);
    scene.browser.reads("#said", "hidden again");
    scene.has_no_complaints();
}

#[test]
fn a_code_of_five_minutes_ago_opens_nothing() {
    let scene = Scene::signed_in();
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    scene.browser.click("[data-open=view-key]");
    scene.browser.fill("#view-code", &scene.codes.code_of(now / STEP - 10));
    scene.browser.press(PRESS_ENTER);
    scene.browser.reads("#view-key .failure", "The code is wrong.");
    assert_eq!(scene.browser.run("return document.querySelector('#view-key [data-key]').textContent"), "");
    scene.has_no_complaints();
}

#[test]
fn the_secret_of_the_cookie_is_another_after_a_code_and_after_signing_in() {
    let mut scene = Scene::signed_in();
    let secret = |scene: &Scene| cookie(&scene.browser, "__Host-tollgate")["value"].as_str().unwrap().to_owned();
    let first = secret(&scene);
    scene.browser.click("[data-open=view-key]");
    scene.browser.fill("#view-code", &scene.codes.next());
    scene.browser.press(PRESS_ENTER);
    scene.browser.reads("#view-key [data-key]", "dvk_");
    let second = secret(&scene);
    scene.browser.go(&scene.url("/console/sign-in"));
    scene.browser.fill("#email", &scene.demo.facts.email);
    scene.browser.fill("#password", &scene.demo.facts.password);
    scene.browser.press(PRESS_ENTER);
    scene.browser.arrives_at("/console/keys");
    let third = secret(&scene);
    assert!(first != second && second != third && first != third);
    let of = |secret: &str| {
        let cookie = format!("__Host-tollgate={secret}");
        raw::call(scene.demo.control(), "GET", "/v1/keys", &[("cookie", &cookie)], b"").status
    };
    assert_eq!((of(&first), of(&third)), (401, 200));
}

#[test]
fn what_somebody_typed_is_shown_and_never_run() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    let evil = "<img src=x onerror='window.pwned=1'>\"><script>window.pwned=1</script>";
    let (account, token) = (&scene.demo.facts.account_id, scene.token());
    scene.create_key(&token, evil);
    let cluster = json!({"hosts": ["evil.test"], "name": evil, "upstreams": ["http://127.0.0.1:9"], "allow_ips": []});
    scene.operator("POST", &format!("/v1/accounts/{account}/clusters"), &cluster);
    let stranger = json!({"email": "evil@demo.test", "password": "a password", "name": evil, "verified": true});
    scene.operator("POST", "/v1/accounts", &stranger);
    // Where an address may look like this, it is shown like any other.
    let member = json!({"email": "<img/src=x/onerror=pwned=1>@demo.test", "password": "member password"});
    raw::api(scene.demo.control(), "POST", &format!("/v1/accounts/{account}/members"), &token, &member);
    let safe = |page: &str| {
        assert_eq!(
            browser.run("return [window.pwned ?? null, document.querySelectorAll('img[src=x]').length]"),
            json!([null, 0]),
            "{page}"
        );
    };
    for page in ["keys", "usage", "clusters", "audit", "account"] {
        scene.open(&format!("/console/{page}"));
        browser.until("it is shown as it was typed", || {
            page == "account" || page == "usage" || browser.page_text().contains("<img src=x")
        });
        safe(page);
    }
    scene.open("/console/keys");
    for dialog in ["view-key", "delete-key", "edit-key"] {
        browser.click(&format!("tr:last-child [data-open={dialog}]"));
        browser.until("the dialog is open", || browser.count("dialog[open]") == 1);
        safe(dialog);
        browser.press(PRESS_ESCAPE);
    }
    browser.click("tr:last-child a[href*=rotate]");
    browser.arrives_at("/console/rotate");
    safe("rotate");
    scene.open("/console/keys?deleted=%3Cscript%3E&x=%22%3E%3Cimg%20src=x%3E");
    safe("the query");
    scene.open("/console/operator/sign-in");
    browser.fill("#token", &scene.demo.facts.operator_token);
    browser.press(PRESS_ENTER);
    browser.arrives_at("/console/operator");
    browser.reads("main", "<img src=x");
    safe("accounts");
    scene.has_no_complaints();
}

#[test]
fn the_keyboard_suffices_and_the_focus_comes_back_to_where_it_was() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    let focused = |what: &str| browser.run(&format!("return document.activeElement.matches({what:?})")) == true;
    let tab_to = |what: &str| {
        for _ in 0..40 {
            if focused(what) {
                return;
            }
            browser.press(PRESS_TAB);
        }
        panic!("{what} is not reached");
    };
    browser.press(PRESS_TAB);
    assert!(focused(".skip"), "the first stop leads over the navigation");
    tab_to("#create");
    browser.press(PRESS_ENTER);
    browser.until("the first field has the focus", || focused("#create-name"));
    for _ in 0..8 {
        browser.press(PRESS_TAB);
        assert!(focused("#create-key *, #create-key, body"), "the focus stays in the dialog");
    }
    browser.press(PRESS_ESCAPE);
    browser.until("the focus is back", || browser.count("dialog[open]") == 0 && focused("#create"));
    tab_to("[data-open=view-key]");
    browser.press(PRESS_ENTER);
    browser.until("the field of the code has the focus", || focused("#view-code"));
    browser.press(PRESS_ESCAPE);
    browser.until("the focus is back", || focused("[data-open=view-key]"));
    tab_to("[data-open=delete-key]");
    browser.press(PRESS_ENTER);
    browser.until("the word has the focus", || focused("#delete-word"));
    browser.press(PRESS_ESCAPE);
    browser.until("the focus is back", || focused("[data-open=delete-key]"));
    scene.open("/console/keys");
    tab_to("#create");
    browser.press(PRESS_ENTER);
    browser.until("the first field has the focus", || focused("#create-name"));
    browser.press("by hand");
    browser.press(PRESS_ENTER);
    browser.reads("#create-key [data-key]", "dvk_");
    browser.until("the new key has the focus", || focused("#create-key [data-key]"));
    browser.press(PRESS_ESCAPE);
    browser.reads(".keys", "by hand");
    scene.has_no_complaints();
}

/// Texts and labels of the page with a word of Latin letters, but for what machines say.
fn latin(scene: &Scene) -> BTreeSet<String> {
    let script = "const found = [];
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const node = walker.currentNode;
            if (!node.parentElement.closest('code, pre, script, .key, option, .legend, .numbers')) found.push(node.textContent.trim());
        }
        for (const one of document.body.querySelectorAll('[aria-label], [title], [placeholder], [alt]')) {
            for (const name of ['aria-label', 'title', 'placeholder', 'alt']) found.push((one.getAttribute(name) ?? '').trim());
        }
        return found.filter((one) => /[A-Za-z]{3,}/.test(one.replaceAll('UTC', '')));";
    let found = scene.browser.run(script);
    found.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

#[test]
fn no_text_is_the_same_in_both_languages() {
    let scene = Scene::signed_in();
    scene.call(scene.demo.key());
    let own = |text: &String| {
        let names = ["Tollgate", "curl", "Python", "demo", "Demo", "English", "API reference (OpenAPI)"];
        let machine = ["acc_", "ses_", "gw_", "key_", "clu_", "@demo.test", "http://", "Tollgate "];
        names.contains(&text.as_str()) || machine.iter().any(|part| text.contains(part))
    };
    let compare = |page: &str| {
        let [en, zh] = ["en", "zh"].map(|lang| {
            scene.open(&format!("/console/language?to={lang}&back=%2Fconsole%2F{}", page.replace('/', "%2F")));
            latin(&scene)
        });
        let both: Vec<_> = en.intersection(&zh).filter(|text| !own(text)).collect();
        assert!(both.is_empty(), "{page}: {both:?}");
        assert!(en.len() > 5, "{page}: {en:?}");
    };
    let id = scene.browser.run("return document.querySelector('.keys tbody tr').id");
    for page in ["keys", "keys?deleted=1", "usage", "usage?range=7d", "clusters", "audit", "account", "sign-in"] {
        compare(page);
    }
    compare(&format!("rotate?old={}", id.as_str().unwrap()));
    scene.open("/console/operator/sign-in");
    scene.browser.fill("#token", &scene.demo.facts.operator_token);
    scene.browser.press(PRESS_ENTER);
    scene.browser.arrives_at("/console/operator");
    for page in ["operator", "operator/gateways", "operator/billing", "operator/audit"] {
        compare(page);
    }
}

#[test]
fn a_key_that_a_browser_sent_has_a_banner_and_counts_no_call() {
    let scene = Scene::signed_in();
    let made = scene.create_key(&scene.token(), "leaked");
    let headers = [("dashvector-auth-token", made["key"].as_str().unwrap()), ("origin", "https://page.example")];
    let refused = raw::call(scene.demo.gateway(), "GET", "/v1/collections", &headers, b"");
    assert!(refused.status == 403, "{}", refused.text());
    scene.browser.until("the banner", || {
        scene.open("/console/keys");
        scene.browser.page_text().contains("leaked was sent by a browser")
    });
    let row = format!("#{}", made["id"].as_str().unwrap());
    assert!(scene.browser.text(&row).contains("never"), "{}", scene.browser.text(&row));
    let usage = raw::api(scene.demo.control(), "GET", "/v1/usage/records?by=key", &scene.token(), &Value::Null);
    assert_eq!(usage.text(), "");
    scene.browser.click(".banner a[href*=rotate]");
    scene.browser.arrives_at("/console/rotate");
    scene.has_no_complaints();
}

#[test]
fn after_ten_creations_of_a_day_the_button_says_until_when() {
    let scene = Scene::signed_in();
    let (token, account) = (scene.token(), &scene.demo.facts.account_id);
    for _ in 0..9 {
        let key = scene.create_key(&token, "short");
        let path = format!("/v1/accounts/{account}/keys/{}", key["id"].as_str().unwrap());
        scene.operator("DELETE", &path, &json!({"reason": "a test"}));
    }
    scene.open("/console/keys");
    scene.browser.reads("#quota", "1 of 3 active · 10 of 10 created today");
    scene.browser.reads("#create-why", "10 of 10 keys were created today. More from");
    assert!(scene.browser.run("return document.querySelector('#create').disabled") == true);
    // Midnight in the account's zone, which the footer names; UTC is on hover.
    scene.browser.reads(".zone", "UTC+8");
    scene.browser.reads("#create-why time", "12:00");
    assert!(
        scene
            .browser
            .run("return document.querySelector('#create-why time').title")
            .as_str()
            .unwrap()
            .ends_with("16:00 UTC")
    );
    scene.has_no_complaints();
}

#[test]
fn without_a_network_the_dialog_says_so_and_goes_on_afterwards() {
    let scene = Scene::signed_in();
    let offline = |offline: bool| {
        let conditions = json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
        scene.browser.devtools("Network.enable", &json!({}));
        scene.browser.devtools("Network.emulateNetworkConditions", &conditions);
    };
    scene.browser.click("#create");
    offline(true);
    scene.browser.click("#create-key [type=submit]");
    scene.browser.reads("#create-key .failure", "The server cannot be reached");
    offline(false);
    scene.browser.click("#create-key [type=submit]");
    scene.browser.reads("#create-key [data-key]", "dvk_");
}

#[test]
fn a_violation_of_the_policy_would_be_noticed() {
    let scene = Scene::signed_in();
    scene
        .browser
        .run("const script = document.createElement('script'); script.textContent = '1'; document.body.append(script)");
    let mut complaints = Vec::new();
    scene.browser.until("a complaint", || {
        complaints.extend(scene.browser.complaints());
        complaints.iter().any(|one| one.contains("Content Security Policy"))
    });
}
