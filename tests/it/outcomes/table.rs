//! The table in docs/metering.md and the tests cannot drift apart: every row names tests that there are, every test here is in a row.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tollgate::meter::record::Outcome;
use tollgate::verdict::Denial;

/// Rows of the tables under a heading of docs/metering.md, as cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metering.md")).unwrap();
    let section = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}")).1;
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|--"));
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether `billing::an_hour` is a test: in tests/it/billing.rs, under the attribute.
fn is_a_test(name: &str) -> bool {
    let (module, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("{name} has no module"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/{}.rs", module.replace("::", "/")));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    tests_in(&text).contains(test)
}

fn tests_in(text: &str) -> BTreeSet<&str> {
    let after = text.split("#[test]\n").skip(1);
    after.filter_map(|rest| rest.trim_start().strip_prefix("fn ")?.split_once('(').map(|(name, _)| name)).collect()
}

const HEADING: &str = "What is counted of a call";

#[test]
fn every_row_of_the_table_names_tests_that_there_are() {
    let rows = rows(HEADING);
    let tests: Vec<_> = rows.iter().filter_map(|row| row.last()).flat_map(|cell| code(cell)).collect();
    assert!(tests.len() >= 30, "{tests:?}");
    tests.iter().for_each(|test| assert!(is_a_test(test), "{test} is not a test"));
    for row in rows.iter().filter(|row| !row[0].starts_with("what happened") && !row[0].starts_with("denial")) {
        assert!(!code(row.last().unwrap()).is_empty(), "no test for {row:?}");
    }
}

#[test]
fn every_fault_of_the_meter_names_tests_that_there_are() {
    let rows = rows("When nothing can be counted");
    let named: BTreeSet<_> = rows.iter().filter_map(|row| row.last()).flat_map(|cell| code(cell)).collect();
    named.iter().for_each(|test| assert!(is_a_test(test), "{test} is not a test"));
    for test in tests_in(include_str!("../full.rs")) {
        assert!(named.contains(format!("full::{test}").as_str()), "{test} is in no row");
    }
}

#[test]
fn every_test_of_an_outcome_is_in_the_table() {
    let rows = rows(HEADING);
    let named: BTreeSet<_> = rows.iter().filter_map(|row| row.last()).flat_map(|cell| code(cell)).collect();
    for test in tests_in(include_str!("../outcomes.rs")) {
        assert!(named.contains(format!("outcomes::{test}").as_str()), "{test} is in no row");
    }
}

#[test]
fn every_outcome_and_every_denial_has_a_row() {
    let rows = rows(HEADING);
    let words: BTreeSet<_> = rows.iter().flat_map(|row| row.iter().take(2)).flat_map(|cell| code(cell)).collect();
    Outcome::ALL.iter().for_each(|outcome| assert!(words.contains(outcome.name()), "{outcome:?}"));
    assert!(words.contains("interrupted"));
    Denial::ALL.iter().for_each(|denial| assert!(words.contains(denial.row().label), "{denial:?}"));
}
