//! What the decision over a call costs in instructions, which are the same on every machine: counted by valgrind, and held to a budget.
//!
//! valgrind's processor has no instructions for SHA-256, so the digest costs more there than anywhere else. Beside that the figure of
//! a release build is what a call costs; `cargo test --release --test instructions -- --nocapture` prints it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "a test")]

mod decision;

use std::process::Command;

use self::decision::Decision;

/// Present in a process that is counted: how many decisions to make.
const DECISIONS: &str = "TOLLGATE_DECISIONS";
const NAME: &str = "a_decision_stays_within_its_instructions";
const FEW: u64 = 1000;
const MANY: u64 = 3000;
/// Of one decision, with the debug assertions and the little optimisation of the profile `ci`, in which 11 685 were measured. A change
/// that goes beyond says why, and raises it.
const BUDGET: u64 = 13_500;

#[test]
fn a_decision_stays_within_its_instructions() {
    if let Ok(decisions) = std::env::var(DECISIONS) {
        let decision = Decision::among(1000);
        return (0..decisions.parse::<u64>().unwrap()).for_each(|_| decision.make());
    }
    // What the start costs is in both.
    let each = (counted(MANY) - counted(FEW)) / (MANY - FEW);
    println!("{each} instructions a decision, of {BUDGET}");
    assert!(each <= BUDGET, "{each} instructions a decision, and {BUDGET} is the budget");
    assert!(each > 1000, "{each} instructions cannot be a decision: nothing was counted");
}

/// The instructions of a process that makes this many decisions.
fn counted(decisions: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--test-threads", "1"])
        .env(DECISIONS, decisions.to_string())
        .output()
        .expect("valgrind is installed by `make setup`");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{said}"));
    collected.1.trim().parse().unwrap()
}
