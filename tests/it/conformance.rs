//! Every operation of the API against its own OpenAPI document, by schemathesis: whatever is asked, there is no 5xx, and no answer that the
//! document does not know.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::process::Demo;
use crate::harness::raw;
use crate::harness::stage::text;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// Cases are made from the document, the same ones in every run.
fn holds_for(demo: &Demo, token: &str) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/schemathesis");
    assert!(program.is_file(), "{} is missing: run `make setup`", program.display());
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(program)
        .args([
            "run",
            &format!("http://{}/openapi.json", demo.control()),
            "--url",
            &format!("http://{}", demo.control()),
        ])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "7"])
        .args(["--generation-deterministic", "--request-timeout", "20", "--suppress-health-check", "all", "--no-color"])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--warnings", "off"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    println!("{}", said.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_operator_is_answered_as_the_document_says() {
    let demo = Demo::start();
    holds_for(&demo, &demo.facts.operator_token);
}

#[test]
fn an_owner_is_answered_as_the_document_says() {
    let demo = Demo::start();
    let who = json!({"email": demo.facts.email, "password": demo.facts.password});
    let session = raw::api(demo.control(), "POST", "/v1/session", "", &who);
    holds_for(&demo, &text(&session.json(), "token"));
}

#[test]
fn a_stranger_is_answered_as_the_document_says() {
    let demo = Demo::start();
    holds_for(&demo, "nobody-gave-this-token-out");
}
