//! The account's page: password, authenticator, recovery codes, members, sessions.

use super::{Codes, Scene};

#[test]
fn the_password_is_changed_with_a_code_and_the_old_one_is_no_longer_good() {
    let mut scene = Scene::signed_in();
    scene.open("/console/account");
    scene.browser.click("[data-open=password-dialog]");
    scene.browser.fill("#old-password", &scene.demo.facts.password);
    scene.browser.fill("#new-password", "a new password");
    scene.browser.fill("#repeat-password", "another password");
    scene.browser.fill("#password-code", &scene.codes.next());
    scene.browser.click("#password-dialog [type=submit]");
    scene.browser.reads("#password-dialog .failure", "differ");
    scene.browser.fill("#repeat-password", "a new password");
    scene.browser.click("#password-dialog [type=submit]");
    scene.browser.reads("#password-dialog [data-step=done]", "Your password is changed");
    scene.browser.click("#password-dialog [data-step=done] [data-close]");
    scene.browser.reads("main", "Active sessions");
    scene.browser.click("[data-act=sign-out]");
    scene.browser.arrives_at("/console/sign-in");
    scene.sign_in(&scene.demo.facts.email, "a new password");
    scene.has_no_complaints();
}

#[test]
fn a_new_authenticator_is_in_force_once_it_has_shown_a_code() {
    let mut scene = Scene::signed_in();
    scene.open("/console/account");
    scene.browser.click("[data-open=totp-dialog]");
    scene.browser.fill("#totp-code", &scene.codes.next());
    scene.browser.click("#totp-dialog [data-step=ask] [type=submit]");
    let secret = scene.browser.text("#totp-dialog [data-secret]").replace(' ', "");
    scene.browser.until("the QR code is drawn", || {
        scene.browser.run("const qr = document.querySelector('[data-qr]'); return qr.complete && qr.naturalWidth > 100")
            == true
    });
    let mut new = Codes::of(&secret);
    new.used = scene.codes.used;
    scene.browser.fill("#totp-new-code", &new.wrong());
    scene.browser.click("#totp-dialog [data-step=scan] [type=submit]");
    scene.browser.reads("#totp-dialog [data-step=scan] .failure", "wrong");
    scene.browser.fill("#totp-new-code", &new.next());
    scene.browser.click("#totp-dialog [data-step=scan] [type=submit]");
    scene.browser.reads("#totp-dialog [data-step=done]", "in force");
    scene.open("/console/keys");
    scene.browser.click("[data-open=view-key]");
    scene.browser.fill("#view-code", &new.next());
    scene.browser.click("#view-key [type=submit]");
    scene.browser.reads("#view-key [data-key]", "dvk_");
    scene.has_no_complaints();
}

#[test]
fn a_recovery_code_is_good_for_one_view() {
    let mut scene = Scene::signed_in();
    scene.open("/console/account");
    scene.browser.click("[data-open=recovery-dialog]");
    scene.browser.fill("#recovery-code", &scene.codes.next());
    scene.browser.click("#recovery-dialog [type=submit]");
    scene.browser.until("ten codes", || scene.browser.count("[data-codes] li") == 10);
    let code = scene.browser.text("[data-codes] li");
    scene.open("/console/keys");
    for (good, says) in [(true, "dvk_"), (false, "The code is wrong.")] {
        scene.browser.click("[data-open=view-key]");
        scene.browser.fill("#view-code", &code);
        scene.browser.click("#view-key [type=submit]");
        scene.browser.reads(if good { "#view-key [data-key]" } else { "#view-key .failure" }, says);
        scene.browser.press("\u{e00c}");
    }
    scene.has_no_complaints();
}

#[test]
fn members_are_added_and_removed_and_other_sessions_ended() {
    let scene = Scene::signed_in();
    let browser = &scene.browser;
    let other = scene.token();
    scene.open("/console/account");
    browser.click("[data-open=member-dialog]");
    browser.fill("#member-email", "new@demo.test");
    browser.fill("#member-password", "member password");
    browser.click("#member-dialog [type=submit]");
    browser.reads("main", "new@demo.test");
    browser.click("[data-open=member-remove]");
    browser.reads("#member-remove", "new@demo.test");
    browser.click("#member-remove [type=submit]");
    browser.reads("main", "Nobody yet.");
    browser.click("[data-act=end-other-sessions]");
    browser.until("the button is gone", || browser.count("[data-act=end-other-sessions]") == 0);
    let answer = crate::harness::raw::api(scene.demo.control(), "GET", "/v1/keys", &other, &serde_json::Value::Null);
    assert_eq!(answer.status, 401);
    browser.reads("main", "this one");
    scene.has_no_complaints();
}
