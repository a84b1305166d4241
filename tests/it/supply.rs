//! Licences, bans and sources of all crates, by the rules of deny.toml: what cargo-deny checks, without cargo-deny.

use std::process::Command;

use serde_json::Value;
use toml::Table;

fn rules() -> Table {
    include_str!("../../deny.toml").parse().unwrap()
}

/// The crates that are linked or run on this platform, tests included.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let resolved: Vec<&Value> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().filter(|package| resolved.contains(&&package["id"])).cloned().collect()
}

fn texts(list: &toml::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().filter_map(toml::Value::as_str).collect()
}

/// Whether an SPDX expression can be met with these licences.
fn can_be_met(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = any(&tokens, allowed);
    met && rest.is_empty()
}

fn any<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = all(tokens, allowed);
    while let ["OR", behind @ ..] = rest {
        let (other, left) = all(behind, allowed);
        (met, rest) = (met || other, left);
    }
    (met, rest)
}

fn all<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(tokens, allowed);
    while let ["AND", behind @ ..] = rest {
        let (other, left) = one(behind, allowed);
        (met, rest) = (met && other, left);
    }
    (met, rest)
}

fn one<'a>(tokens: &'a [&'a str], allowed: &[&str]) -> (bool, &'a [&'a str]) {
    match tokens {
        ["(", inner @ ..] => match any(inner, allowed) {
            (met, [")", rest @ ..]) => (met, rest),
            (_, rest) => (false, rest),
        },
        [name, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{name} WITH {exception}").as_str()), rest),
        [name, rest @ ..] => (allowed.contains(name), rest),
        [] => (false, &[]),
    }
}

#[test]
fn an_expression_is_met_by_one_side_of_or_and_both_of_and() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    for good in
        ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(GPL-3.0 OR MIT) AND Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(can_be_met(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT WITH something", "(MIT", "MIT MIT", "GPL-3.0 OR LGPL-2.1"] {
        assert!(!can_be_met(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_crate_has_a_licence_that_deny_toml_allows() {
    let rules = rules();
    let allowed = texts(&rules["licenses"]["allow"]);
    let packages = packages();
    assert!(packages.len() > 100, "this is not the whole tree");
    let bad = |package: &&Value| !can_be_met(package["license"].as_str().unwrap_or_default(), &allowed);
    let bad: Vec<_> =
        packages.iter().filter(bad).map(|package| format!("{}: {}", package["name"], package["license"])).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn no_banned_crate_is_in_the_tree_and_each_ban_has_its_reason() {
    let rules = rules();
    let packages = packages();
    for ban in rules["bans"]["deny"].as_array().unwrap() {
        let (name, reason) = (ban["crate"].as_str().unwrap(), ban["reason"].as_str().unwrap());
        assert!(packages.iter().all(|package| package["name"] != name), "{name} is in the tree: {reason}");
    }
}

#[test]
fn every_crate_comes_from_the_registry() {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let elsewhere = |package: &&Value| package["source"].as_str().is_some_and(|source| source != REGISTRY);
    let elsewhere: Vec<_> = packages().iter().filter(elsewhere).map(|package| package["name"].to_string()).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
