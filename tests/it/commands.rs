//! The command line against a node that runs: tables for people, JSON for programs, errors that say what to do.

use serde_json::Value;

use crate::harness::process::{OPERATOR_TOKEN, run};
use crate::kept::{Admitted, Kept, PASSWORD, code, text, told};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_operator_and_a_root_user_get_by_with_the_command_line() {
    let mut kept = Kept::new();
    kept.start();
    let create = ["account", "create", "--email", "cli@owner.test", "--name", "By hand", "--json"];
    let operator = [("TOLLGATE_TOKEN", OPERATOR_TOKEN), ("TOLLGATE_PASSWORD", PASSWORD)];
    let made = json(&told(kept.ask(&operator, &create)));
    let (account, totp) = (text(&made, "account_id"), text(&made, "totp_secret"));
    let table = kept.tell(OPERATOR_TOKEN, &["account", "list"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("ACCOUNT") && lines[0].contains("VERIFIED"), "{table}");
    assert!(lines[1].contains(&account) && lines[1].contains("By hand") && lines[1].contains(" no "), "{table}");
    kept.tell(OPERATOR_TOKEN, &["account", "verify", &account]);
    let limited =
        kept.tell(OPERATOR_TOKEN, &["account", "limits", &account, "--active-max", "2", "--daily-max", "5", "--json"]);
    assert_eq!((json(&limited)["active_max"].as_u64(), json(&limited)["daily_max"].as_u64()), (Some(2), Some(5)));
    let new = ["cluster", "create", &account, "--host", "kept.test", "--upstream", "http://127.0.0.1:1", "--json"];
    let cluster = text(&json(&kept.tell(OPERATOR_TOKEN, &new)), "cluster_id");
    let clusters = kept.tell(OPERATOR_TOKEN, &["cluster", "list", &account]);
    assert!(clusters.contains(&cluster) && clusters.contains("kept.test"), "{clusters}");

    // As the root user: signed in for one command, then with a session.
    let root = [("TOLLGATE_EMAIL", "cli@owner.test"), ("TOLLGATE_PASSWORD", PASSWORD)];
    let key = json(&told(kept.ask(&root, &["key", "create", "--name", "first", "--json"])));
    assert_eq!(kept.running().admits(&text(&key, "key")), Admitted::Yes);
    let session = told(kept.ask(&root, &["session", "open"])).trim().to_owned();
    let sessions = json(&kept.tell(&session, &["session", "list", "--json"]));
    assert_eq!(sessions.as_array().unwrap().len(), 1, "the session of one command is ended behind it: {sessions}");
    let id = text(&key, "id");
    let list = kept.tell(&session, &["key", "list"]);
    assert!(
        list.contains(&id) && list.contains("first") && list.contains("1 of 2 active, 1 of 5 created today"),
        "{list}"
    );
    kept.tell(&session, &["key", "rename", &id, "renamed"]);
    kept.tell(&session, &["key", "disable", &id]);
    assert!(kept.tell(&session, &["key", "show", &id]).contains("disabled"));
    kept.tell(&session, &["key", "enable", &id]);
    let viewed = kept.tell(&session, &["key", "view", &id, "--code", &code(&totp), "--json"]);
    assert_eq!(text(&json(&viewed), "key"), text(&key, "key"));
    kept.tell(&session, &["member", "list", &account]);
    // The same code again: said, and what to do about it.
    let again = kept.ask(&[("TOLLGATE_TOKEN", &session)], &["key", "delete", &id, "--code", &code(&totp)]);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("code_") && again.status.code() == Some(1), "{said}");
    let receipt = kept.tell(OPERATOR_TOKEN, &["key", "revoke", &account, &id, "--reason", "leaked"]);
    assert!(receipt.contains("No gateway admits this key any more."), "{receipt}");
    let receipt = json(&kept.tell(&session, &["key", "delete", &id, "--json"]));
    assert_eq!(receipt["revoked"], "everywhere", "a repeated delete needs no code");

    let gateways = kept.tell(OPERATOR_TOKEN, &["gateway", "list"]);
    assert!(gateways.contains("gw_") && gateways.contains("good"), "{gateways}");
    let audit = kept.tell(OPERATOR_TOKEN, &["audit", "list", "--limit", "5"]);
    assert!(audit.starts_with("NO") && audit.contains("key.delete"), "{audit}");
    assert!(kept.tell(OPERATOR_TOKEN, &["audit", "verify"]).contains("whole"));
    kept.tell(OPERATOR_TOKEN, &["usage", "records"]);
    let status = kept.told(&["store", "status"], &[]);
    assert!(status.contains("sto_") && status.contains("jrn_"), "{status}");
    kept.tell(OPERATOR_TOKEN, &["cluster", "delete", &cluster]);
    kept.stop();
    assert!(told(kept.command(&["audit", "verify"], &[])).contains("whole"));
    assert!(kept.told(&["store", "status"], &[]).contains("sto_"));
}

#[test]
fn an_error_says_what_to_do() {
    let mut kept = Kept::new();
    kept.start();
    let said = |environment: &[(&str, &str)], arguments: &[&str]| {
        let output = kept.ask(environment, arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&[], &["account", "list"]).contains("set TOLLGATE_TOKEN to the operator's token"));
    let wrong = said(&[("TOLLGATE_TOKEN", "not-a-token")], &["account", "list"]);
    assert!(wrong.contains("unauthenticated") && wrong.contains("TOLLGATE_TOKEN is not valid"), "{wrong}");
    assert!(
        said(&[("TOLLGATE_TOKEN", OPERATOR_TOKEN)], &["account", "show", "acc_aaaaaaaaaaaaaaaa"]).contains("not_found")
    );
    let alone = run(&["gateway", "list", "--control", "ftp://nowhere"]);
    assert!(!alone.status.success());
    let nobody = crate::harness::process::run_with(
        &["gateway", "list", "--control", "http://127.0.0.1:1"],
        &[("TOLLGATE_TOKEN", OPERATOR_TOKEN)],
    );
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("Is it running?"));
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(told(run(&["completions", shell])).contains("tollgate"), "{shell}");
    }
}
