//! The real Python SDK, unmodified: its whole quick start through the gateway, and what it shows its user when it is denied.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tollgate::verdict::Denial;

use crate::harness::process::Node;
use crate::world::{Account, DEFAULT_HOST, Key, World, count, text};

#[test]
fn the_quick_start_passes_over_grpc_in_cleartext_and_is_billed_call_by_call() {
    quick_start("grpc", &World::start("", ""), None);
}

#[test]
fn the_quick_start_passes_over_http_in_cleartext_and_is_billed_call_by_call() {
    quick_start("http", &World::start("", ""), None);
}

#[test]
fn the_quick_start_passes_over_grpc_under_tls_and_is_billed_call_by_call() {
    let world = under_tls("");
    quick_start("grpc", &world, Some(&world.node.path("gateway.crt")));
}

#[test]
fn the_quick_start_passes_over_http_under_tls_and_is_billed_call_by_call() {
    let world = under_tls("");
    quick_start("http", &world, Some(&world.node.path("gateway.crt")));
}

#[test]
fn denials_show_their_code_and_text_over_grpc_and_their_status_over_http() {
    let world = under_tls("");
    let shown = denials(&world);
    for (case, denial) in CASES {
        assert_grpc(&shown[case]["grpc"], denial, case);
        let http = &shown[case]["http"];
        assert_eq!(http["code"], denial.row().http.as_u16(), "{case}: {http}");
    }
}

#[test]
fn denials_in_the_body_show_their_text_over_http_too() {
    let world = under_tls("http_denials = \"in_body\"");
    let shown = denials(&world);
    for (case, denial) in CASES {
        assert_grpc(&shown[case]["grpc"], denial, case);
        let http = &shown[case]["http"];
        assert_eq!(
            (&http["code"], &http["message"]),
            (&json!(denial.row().code), &json!(denial.row().message)),
            "{case}"
        );
        assert_eq!(text(http, "request_id").len(), 32, "{case}: {http}");
    }
}

const CASES: [(&str, Denial); 4] = [
    ("wrong", Denial::NotValid),
    ("empty", Denial::NotValid),
    ("deleted", Denial::NotValid),
    ("other_account", Denial::NotTheOwner),
];

/// The SDK hands an `extra-code` out as the text it is.
fn assert_grpc(shown: &Value, denial: Denial, case: &str) {
    let row = denial.row();
    assert_eq!(shown["code"], row.code.to_string(), "{case}: {shown}");
    assert_eq!(shown["message"], row.message, "{case}: {shown}");
    assert_eq!(text(shown, "request_id").len(), 32, "{case}: {shown}");
}

/// Every case of a denial in both protocols, and none of them billed or seen by the service.
fn denials(world: &World) -> Value {
    let (account, key) = world.owner(DEFAULT_HOST);
    let deleted = world.key(&account);
    world.delete_key(&account, &deleted);
    let (_, other) = world.owner("other.test");
    let ca = world.node.path("gateway.crt");
    let keys = ["--key", &key.text, "--deleted", &deleted.text, "--other", &other.text];
    let shown = script("denials.py", world, Some(&ca), &keys);
    assert_eq!((&shown["good"]["grpc"]["code"], &shown["good"]["http"]["code"]), (&json!(0), &json!(0)), "{shown}");
    let ledger = world.ledger(2);
    assert_eq!(ledger, [(("get_version".to_owned(), "ok".to_owned()), 2)].into());
    assert_eq!(world.sample.calls(), 2);
    shown
}

fn under_tls(gateway: &str) -> World {
    let tls = "tls = { cert = \"gateway.crt\", key = \"gateway.key\" }";
    World::start_prepared(&format!("{tls}\n{gateway}"), "", |node: &Node| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        node.write("gateway.crt", &made.cert.pem());
        node.write("gateway.key", &made.signing_key.serialize_pem());
    })
}

/// Sums over the calls of one operation.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    ok: u64,
    refused: u64,
    read_units: u64,
    write_units: u64,
    units_missing: u64,
}

/// Those whose answers ought to say what they cost. The answer to a grouped query has no place for it.
const DOCUMENT_OPERATIONS: [&str; 7] = ["insert", "update", "upsert", "delete", "query", "query_group_by", "fetch"];

type ByOperation = BTreeMap<String, Sums>;

fn quick_start(protocol: &str, world: &World, ca: Option<&Path>) {
    let (account, key): (Account, Key) = world.owner(DEFAULT_HOST);
    let told = script("quickstart.py", world, ca, &["--key", &key.text, "--protocol", protocol]);
    let calls = told["calls"].as_array().unwrap();
    let told = told_to_the_sdk(calls);
    assert!(told.len() >= 18, "every operation was called: {told:?}");

    world.ledger(calls.len() as u64);
    let of_account = format!("?account={}", account.id);
    assert_eq!(billed(&world.records(&of_account)), told);
    assert_eq!(billed(&world.records("")), told, "nobody else was billed");
    assert_eq!(of_the_service(world, &account), of_everybody(&told));
}

/// What one call after the other gave out, by operation.
fn told_to_the_sdk(calls: &[Value]) -> ByOperation {
    let mut told = ByOperation::new();
    for call in calls {
        let operation = text(call, "operation");
        let sums = told.entry(operation.clone()).or_default();
        let units = ["read_units", "write_units"].map(|name| call.get(name).and_then(Value::as_u64));
        sums.ok += u64::from(call.get("code").is_none());
        sums.refused += u64::from(call.get("code").is_some());
        sums.read_units += units[0].unwrap_or(0);
        sums.write_units += units[1].unwrap_or(0);
        let is_of_documents = DOCUMENT_OPERATIONS.contains(&&*operation);
        sums.units_missing += u64::from(is_of_documents && call.get("code").is_none() && units == [None, None]);
    }
    told
}

fn billed(records: &[Value]) -> ByOperation {
    let mut billed = ByOperation::new();
    for record in records {
        let sums = billed.entry(text(record, "operation")).or_default();
        let outcomes = record["calls"].as_object().unwrap();
        assert!(
            outcomes.iter().all(|(name, calls)| matches!(&**name, "ok" | "refused") || count(calls) == 0),
            "{record}"
        );
        sums.ok += count(&record["calls"]["ok"]);
        sums.refused += count(&record["calls"]["refused"]);
        sums.read_units += count(&record["read_units"]);
        sums.write_units += count(&record["write_units"]);
        sums.units_missing += count(&record["units_missing"]);
        assert_eq!((count(&record["interrupted"]), record["final"].as_bool()), (0, Some(false)));
    }
    billed
}

/// Calls by operation, and the units of all.
type Seen = (BTreeMap<String, u64>, u64, u64);

fn of_the_service(world: &World, account: &Account) -> Seen {
    let counts = serde_json::to_value(world.sample.service.counts()).unwrap();
    assert_eq!(counts["accounts"].as_object().unwrap().len(), 1, "every call names its account: {counts}");
    let seen = &counts["accounts"][&account.id];
    assert_eq!(seen["calls"], seen["completed"], "{counts}");
    let operations = seen["operations"].as_object().unwrap();
    let operations = operations.iter().map(|(name, calls)| (name.clone(), calls.as_u64().unwrap())).collect();
    (operations, seen["read_units"].as_u64().unwrap(), seen["write_units"].as_u64().unwrap())
}

fn of_everybody(told: &ByOperation) -> Seen {
    let operations = told.iter().map(|(name, sums)| (name.clone(), sums.ok + sums.refused)).collect();
    (operations, told.values().map(|sums| sums.read_units).sum(), told.values().map(|sums| sums.write_units).sum())
}

/// Runs a script of `tests/sdk` against the world's gateway; its one line of JSON.
fn script(name: &str, world: &World, ca: Option<&Path>, more: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make setup`", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/sdk").join(name)).args(["--address", &world.gateway.to_string()]).args(more);
    if let Some(ca) = ca {
        command.arg("--ca").arg(ca);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {more:?}: {err}\n{out}\nthe log:\n{}", world.process.log());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}
