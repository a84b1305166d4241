//! Pictures of every page in light, dark, and at the width of a phone, for people to look at: `target/console-shots`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Scene;
use crate::harness::browser::Scheme;
use crate::harness::raw;

const LOOKS: [(&str, Scheme, u32, u32); 3] =
    [("light", Scheme::Light, 1280, 900), ("dark", Scheme::Dark, 1280, 900), ("phone", Scheme::Light, 360, 780)];

/// Calls of several kinds, so that there is something to draw.
fn traffic(scene: &Scene, key: &str) {
    let call = |method: &str, path: &str, body: Value| {
        let headers = [("dashvector-auth-token", key), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        raw::call(scene.demo.gateway(), method, path, &headers, body.as_bytes())
    };
    call("POST", "/v1/collections", json!({"name": "quickstart", "dimension": 4}));
    for id in 0..40 {
        let docs = json!({"docs": [{"id": id.to_string(), "vector": [0.1, 0.2, 0.3, id]}]});
        call("POST", "/v1/collections/quickstart/docs", docs);
        for _ in 0..3 {
            call("POST", "/v1/collections/quickstart/query", json!({"vector": [0.1, 0.2, 0.3, 0.4], "topk": 3}));
        }
    }
    for _ in 0..9 {
        call("GET", "/v1/collections/missing", Value::Null);
        call("GET", "/v1/collections", Value::Null);
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/console-shots")
}

/// One page in every look. Nothing may be wider than the window.
#[track_caller]
fn shoot(scene: &Scene, name: &str, prepare: &dyn Fn()) {
    for (look, scheme, width, height) in LOOKS {
        scene.browser.prefers(scheme);
        scene.browser.resize(width, height);
        prepare();
        assert!(scene.browser.overflow() <= 0, "{name} is {} px too wide on a {look} screen", scene.browser.overflow());
        scene.is_accessible(&format!("{name} {look}"));
        scene.browser.shoot(&folder().join(format!("{name}-{look}.png")));
    }
}

fn shoot_pages(scene: &mut Scene, prefix: &str) {
    let pages: [(&str, &str); 7] = [
        ("keys", "/console/keys"),
        ("usage", "/console/usage"),
        ("usage-month", "/console/usage?range=30d"),
        ("clusters", "/console/clusters"),
        ("audit", "/console/audit"),
        ("account", "/console/account"),
        ("deleted", "/console/keys?deleted=1"),
    ];
    for (name, path) in pages {
        shoot(scene, &format!("{prefix}{name}"), &|| scene.open(path));
    }
    for dialog in ["create-key", "view-key", "edit-key", "delete-key"] {
        shoot(scene, &format!("{prefix}dialog-{dialog}"), &|| {
            scene.open("/console/keys");
            scene.browser.click(&format!("[data-open={dialog}]"));
        });
    }
    let keys = scene.browser.run("return [...document.querySelectorAll('.keys tbody tr')].map((row) => row.id)");
    let (old, new) = (keys[0].as_str().unwrap(), keys[1].as_str().unwrap_or_default());
    shoot(scene, &format!("{prefix}rotate"), &|| scene.open(&format!("/console/rotate?old={old}")));
    shoot(scene, &format!("{prefix}rotating"), &|| scene.open(&format!("/console/rotate?old={old}&new={new}")));
}

/// Dialogs as they are for a moment: a key that is shown, and a delete that waits for a gateway.
fn viewed_and_waiting(scene: &Scene) {
    let show = |dialog: &str, fill: &str| {
        scene.open("/console/keys");
        scene.browser.click(&format!("[data-open={dialog}]"));
        scene.browser.run(&format!(
            "const dialog = document.querySelector('#{dialog}'); {fill} dialog.querySelector('[data-step=ask]').hidden = true; \
             dialog.querySelector('[data-step=done]').hidden = false"
        ));
    };
    shoot(scene, "viewed", &|| {
        show(
            "view-key",
            "dialog.querySelector('[data-key]').textContent = 'dvk_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGh'; \
             dialog.querySelector('[data-hides]').textContent = 'Hides in 42 s.';",
        );
    });
    shoot(scene, "waiting", &|| {
        show(
            "delete-key",
            "showReceipt(dialog.querySelector('[data-receipt]'), {revoked: 'pending', revision: 7, at_latest_ms: 4200, \
             gateways: [{id: 'gw_aaaaaaaaaaaaaaaa', acknowledged_ms: 2}], unconfirmed: ['gw_bbbbbbbbbbbbbbbb']});",
        );
    });
}

#[test]
fn every_page_fits_every_window_and_is_pictured() {
    let mut scene = Scene::signed_in();
    let token = scene.token();
    let second = scene.create_key(&token, "production indexer");
    traffic(&scene, scene.demo.key());
    traffic(&scene, second["key"].as_str().unwrap());
    let page = [("dashvector-auth-token", second["key"].as_str().unwrap()), ("origin", "https://page.example")];
    raw::call(scene.demo.gateway(), "GET", "/v1/collections", &page, b"");
    scene.browser.until("the usage is there", || {
        scene.open("/console/usage");
        scene.browser.text(".figures dd").len() >= 3
    });
    shoot_pages(&mut scene, "");
    scene.has_no_complaints();
    shoot(&scene, "created", &|| {
        scene.open("/console/keys");
        scene.browser.run("document.querySelector('#create-key [data-key]').textContent = 'dvk_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGh'");
        scene.browser.run(
            "const d = document.querySelector('#create-key'); d.showModal(); d.querySelector('[data-step=ask]').hidden = true; \
             d.querySelector('[data-step=done]').hidden = false",
        );
    });
    scene.create_key(&token, "third");
    shoot(&scene, "keys-full", &|| scene.open("/console/keys"));
    for dialog in ["password-dialog", "totp-dialog", "recovery-dialog", "member-dialog"] {
        shoot(&scene, &format!("dialog-{dialog}"), &|| {
            scene.open("/console/account");
            scene.browser.click(&format!("[data-open={dialog}]"));
        });
    }
    viewed_and_waiting(&scene);
    shoot(&scene, "failed", &|| scene.open("/console/audit?cursor=not-a-cursor"));
    scene.browser.complaints();
    let code = scene.codes.next();
    scene.browser.resize(1280, 900);
    scene.open("/console/keys");
    scene.browser.click("[data-open=delete-key]");
    scene.browser.fill("#delete-word", "demo");
    scene.browser.fill("#delete-code", &code);
    scene.browser.click("#delete-key [type=submit]");
    scene.browser.reads("#delete-key [data-receipt]", "Denied on");
    scene.browser.shoot(&folder().join("receipt-light.png"));
    // Closing it would load the page again, at some moment during what follows.
    let code = scene.codes.next();
    scene.open("/console/account");
    scene.browser.click("[data-open=totp-dialog]");
    scene.browser.fill("#totp-code", &code);
    scene.browser.click("#totp-dialog [data-step=ask] [type=submit]");
    scene.browser.text("#totp-dialog [data-secret]");
    scene.browser.shoot(&folder().join("authenticator-light.png"));
}

#[test]
fn the_pages_of_strangers_and_of_the_operator_fit_and_are_pictured() {
    let scene = Scene::new();
    let (token, id) = (scene.token(), &scene.demo.facts.account_id);
    raw::call(scene.demo.gateway(), "GET", "/v1/collections", &[("dashvector-auth-token", scene.demo.key())], b"");
    shoot(&scene, "sign-in", &|| scene.open("/console/sign-in"));
    shoot(&scene, "operator-sign-in", &|| scene.open("/console/operator/sign-in"));
    for (name, verified) in [("Northwind Search", true), ("Example Labs", false)] {
        let email = format!("{}@example.com", name.split(' ').next().unwrap().to_lowercase());
        scene.operator(
            "POST",
            "/v1/accounts",
            &json!({"email": email, "password": "a password", "name": name, "verified": verified}),
        );
    }
    scene.open("/console/operator/sign-in");
    scene.browser.fill("#token", &scene.demo.facts.operator_token);
    scene.browser.press("\u{e007}");
    scene.browser.arrives_at("/console/operator");
    for (name, path) in [
        ("accounts", "/console/operator"),
        ("gateways", "/console/operator/gateways"),
        ("billing", "/console/operator/billing"),
        ("whole-audit", "/console/operator/audit"),
    ] {
        shoot(&scene, name, &|| scene.open(path));
        shoot(&scene, &format!("zh-{name}"), &|| {
            scene.open(&format!("/console/language?to=zh&back={}", path.replace('/', "%2F")));
        });
        scene.open("/console/language?to=en");
    }
    let member = json!({"email": "member@demo.test", "password": "member password"});
    raw::api(scene.demo.control(), "POST", &format!("/v1/accounts/{id}/members"), &token, &member);
    scene.open("/console/operator");
    scene.browser.click("[data-act=operator-sign-out]");
    scene.browser.arrives_at("/console/operator/sign-in");
    scene.sign_in("member@demo.test", "member password");
    shoot(&scene, "member", &|| scene.open("/console/keys"));
    empty(&scene);
}

/// The keys' page of an account without any, before and after it is verified.
fn empty(scene: &Scene) {
    let new = json!({"email": "new@demo.test", "password": "a password", "name": "New"});
    let account = scene.operator("POST", "/v1/accounts", &new)["account_id"].as_str().unwrap().to_owned();
    scene.browser.click("[data-act=sign-out]");
    scene.browser.arrives_at("/console/sign-in");
    scene.sign_in("new@demo.test", "a password");
    shoot(scene, "keys-unverified", &|| scene.open("/console/keys"));
    let cluster = json!({"hosts": ["new.test"], "upstreams": ["http://127.0.0.1:9"], "allow_ips": []});
    scene.operator("POST", &format!("/v1/accounts/{account}/clusters"), &cluster);
    scene.operator("PATCH", &format!("/v1/accounts/{account}"), &json!({"verified": true}));
    shoot(scene, "keys-empty", &|| scene.open("/console/keys"));
}

#[test]
fn the_pages_fit_and_are_pictured_in_chinese() {
    let mut scene = Scene::in_language("zh-CN");
    scene.sign_in(&scene.demo.facts.email, &scene.demo.facts.password);
    traffic(&scene, scene.demo.key());
    shoot_pages(&mut scene, "zh-");
    scene.has_no_complaints();
}
