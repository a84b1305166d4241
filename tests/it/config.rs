//! What the binary says about its configuration, and how it exits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::harness::process::{Node, run};

fn check(node: &Node) -> Output {
    run(&["check", "--config", node.config().to_str().unwrap()])
}

/// The lines of the mistakes; the exit code must be 64 and stdout empty.
fn mistakes(node: &Node) -> Vec<String> {
    let output = check(node);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(output.stdout.is_empty());
    said.lines().skip(1).map(|line| line.trim_start().to_owned()).collect()
}

/// The one line about `key`.
fn mistake(config: &str, key: &str) -> String {
    let lines = mistakes(&Node::new(config));
    let about: Vec<_> = lines.iter().filter(|line| line.starts_with(&format!("{key}: "))).collect();
    assert_eq!(about.len(), 1, "{lines:#?}");
    about[0].clone()
}

#[test]
fn a_good_file_has_no_mistakes_and_exits_with_0() {
    let node = Node::new("[gateway]\n[control]\n");
    let output = check(&node);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_printed_default_is_a_good_file() {
    let printed = run(&["config", "--print-default"]);
    assert!(printed.status.success());
    let output = check(&Node::new(std::str::from_utf8(&printed.stdout).unwrap()));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_ledger_of_its_own_is_for_a_store_on_redis() {
    let said = mistake(
        "[gateway]\n[control]\n[meter]\nledger_url = \"redis://user:secret@127.0.0.1:6380\"\n",
        "meter.ledger_url",
    );
    assert!(said.contains("embedded store") && !said.contains("secret"), "{said}");
    let sentinels = "ledger_sentinel = { master = \"ledger\", nodes = [\"127.0.0.1:26379\"] }";
    let said = mistake(&format!("[gateway]\n[control]\n[meter]\n{sentinels}\n"), "meter.ledger_url");
    assert!(said.contains("is missing"), "{said}");
    let redis = "[store]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:6379\"\n[meter]\nledger_url = \"rediss://127.0.0.1:6380/1\"";
    let output = check(&Node::new(&format!("[gateway]\n[control]\n{redis}\n{sentinels}\n")));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let node = Node::new(
        "[gateway]\nlisten = [\"localhost:8080\"]\nthreds = 4\n[gateway.limits]\nidle = \"75\"\n[store]\nlease = \"90s\"\n\
         [keys]\nday_offset = \"8\"\n",
    );
    let lines = mistakes(&node);
    for wanted in [
        "gateway.threds: there is no such key; did you mean threads?",
        "gateway.listen[0]: \"localhost:8080\" is not an IP address with a port; write it like [\"127.0.0.1:8080\"]",
        "gateway.limits.idle: \"75\" is not a duration; write it like \"75s\"",
        "store.lease: the value is out of range; write one from \"1s\" to \"60s\"",
        "keys.day_offset: \"8\" is not a UTC offset; write it like \"+08:00\"",
    ] {
        assert!(lines.iter().any(|line| line == wanted), "{wanted} is not in {lines:#?}");
    }
    let health = lines.iter().filter(|line| line.starts_with("health.listen: is needed")).count();
    assert_eq!((health, lines.len()), (1, 6), "{lines:#?}");
}

#[test]
fn serve_refuses_what_check_refuses() {
    let node = Node::new("[gatewy]\n");
    let output = run(&["serve", "--config", node.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_a_mistake_too() {
    let output = run(&["check", "--config", "/nonexistent/tollgate.toml"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot be read"));
    let lines = mistakes(&Node::new("[gateway\n"));
    assert!(lines[0].starts_with("line 1: this is not TOML"), "{lines:#?}");
}

#[test]
fn a_node_without_a_role_is_a_mistake() {
    let lines = mistakes(&Node::new(""));
    assert!(lines[0].contains("neither [gateway] nor [control]"), "{lines:#?}");
}

#[test]
fn a_store_on_redis_needs_an_address_which_is_never_quoted() {
    let line = mistake("[gateway]\n[control]\n[store]\nkind = \"redis\"\n", "store.url");
    assert!(line.contains("is missing") && line.contains("redis://127.0.0.1:6379"), "{line}");
    let wrong = "[control]\n[store]\nkind = \"redis\"\nurl = \"http://user:hunter2@127.0.0.1\"\n";
    let line = mistake(wrong, "store.url");
    assert!(line.contains("redis://host:port") && !line.contains("hunter2"), "{line}");
}

#[test]
fn tls_needs_both_files_and_both_must_exist() {
    let line = mistake("[gateway]\ntls = { cert = \"some.crt\" }\n[control]\n", "gateway.tls.key");
    assert!(line.contains("is missing"), "{line}");
    let config = "[gateway]\ntls = { cert = \"some.crt\", key = \"some.key\" }\n[control]\n";
    assert!(mistake(config, "gateway.tls.cert").contains("there is no file"));
    assert!(mistake(config, "gateway.tls.key").contains("there is no file"));
}

#[test]
fn an_address_can_be_taken_only_once() {
    let line = mistake("[gateway]\nlisten = [\"0.0.0.0:8081\"]\n[control]\n", "control.listen");
    assert!(line.contains("taken already by gateway.listen"), "{line}");
    let free = "[gateway]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n[control]\nlisten = \"127.0.0.1:0\"\n";
    assert!(check(&Node::new(free)).status.success(), "port 0 is a different one each time");
}

#[test]
fn a_secret_must_exist_be_complete_and_not_be_readable_by_everyone() {
    let node = Node::new("[gateway]\n[control]\nbilling_token_file = \"billing.token\"\n");
    fs::remove_file(node.path("pepper")).unwrap();
    fs::set_permissions(node.path("sealing.key"), fs::Permissions::from_mode(0o644)).unwrap();
    node.write("operator.token", "short");
    node.write("billing.token", "with some white space");
    let lines = mistakes(&node);
    for (key, wanted) in [
        ("secrets.pepper_file", "there is no file"),
        ("secrets.sealing_key_file", "every user of this machine can reach the file"),
        ("control.operator_token_file", "does not hold a token"),
        ("control.billing_token_file", "does not hold a token"),
    ] {
        assert!(lines.iter().any(|line| line.starts_with(key) && line.contains(wanted)), "{key} in {lines:#?}");
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn paths_are_relative_to_the_file() {
    let node =
        Node::new("[gateway]\n[control]\n[secrets]\npepper_file = \"sub/pepper\"\n[store]\npath = \"sub/db/t.redb\"\n");
    let lines = mistakes(&node);
    let sub = node.path("sub");
    assert!(lines.iter().any(|line| line.contains(&sub.join("pepper").display().to_string())), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains(&sub.join("db").display().to_string())), "{lines:#?}");
}

#[test]
fn limits_must_fit_together() {
    let config = "[gateway.limits]\nuri_bytes = \"64KiB\"\nh2_stream_window = \"2MiB\"\nupstream_connect = \"1m\"\ntotal = \"10s\"\n[control]\n";
    let lines = mistakes(&Node::new(config));
    assert_eq!(lines.len(), 3, "{lines:#?}");
}
