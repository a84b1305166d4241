//! The tree is tested too: who may name whom, how long files may get, and what never appears.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::Source;

/// One rule of who may name whom: no file of `of` names anything below `never`.
struct Rule {
    /// Modules with everything below them, as paths like `gateway/usage`.
    of: &'static [&'static str],
    except: &'static [&'static str],
    never: &'static [&'static str],
    why: &'static str,
}

const RUNTIME: &[&str] =
    &["tokio", "hyper", "hyper_util", "pingora", "pingora_core", "pingora_load_balancing", "redis", "crate::clock"];

const RULES: &[Rule] = &[
    Rule {
        of: &["gateway"],
        except: &[],
        never: &["crate::store", "crate::control", "redis"],
        why: "the data plane knows keys only through the keyring, and never calls the control plane",
    },
    Rule {
        of: &[
            "app",
            "auth",
            "cli",
            "config",
            "control",
            "demo",
            "feed",
            "gateway",
            "journal",
            "limits",
            "meter",
            "probe",
            "store",
            "telemetry",
        ],
        except: &["store/redis"],
        never: &["redis"],
        why: "what is on redis is told apart from what is a rule: everybody else knows a store",
    },
    Rule {
        of: &["store/rules"],
        except: &[],
        never: &["redb", "redis", "crate::store::embedded", "crate::store::redis"],
        why: "the rules are rules over rows, wherever these are kept",
    },
    Rule {
        of: &["control"],
        except: &[],
        never: &["crate::gateway", "crate::console"],
        why: "the control plane writes to the store; the feed brings it to the data plane; the console is its client",
    },
    Rule {
        of: &["console"],
        except: &[],
        never: &[
            "crate::store",
            "crate::journal",
            "crate::gateway",
            "crate::auth",
            "crate::meter",
            "crate::feed",
            "crate::key",
            "crate::app",
            "redb",
        ],
        why: "a page is made of what the API answers to its visitor, so that no rule stands in two places",
    },
    Rule {
        of: &[
            "key",
            "principal",
            "verdict",
            "time",
            "meter/record",
            "auth",
            "limits",
            "gateway/extract",
            "gateway/route",
            "gateway/headers",
            "gateway/usage",
        ],
        except: &["auth/loader"],
        never: RUNTIME,
        why: "pure code takes `now` as an argument and can be tested without a runtime",
    },
];

const FORBIDDEN_MODULES: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "ext", "misc", "manager", "service", "services", "types"];

/// Modules in the path of a call, where nothing may panic.
const PATH_OF_A_CALL: &[&str] = &["gateway", "auth", "limits", "meter"];

const MOST_CODE_LINES: usize = 400;

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = source::below(root, "src");
    sources.retain(|file| file.module.last().is_none_or(|name| name != "tests"));
    assert!(sources.len() > 10, "the sources are not where this test looks for them");
    sources
}

fn violations<'a>(rule: &'a Rule, sources: &'a [Source]) -> impl Iterator<Item = String> + 'a {
    let concerned = move |file: &&Source| {
        rule.of.iter().any(|of| file.is_in(of)) && !rule.except.iter().any(|except| file.is_in(except))
    };
    sources.iter().filter(concerned).flat_map(move |file| {
        let bad = |name: &&String| rule.never.iter().any(|never| is_below(name, never));
        let told = |name: &String| format!("{} names {name}: {}", file.path, rule.why);
        file.names().iter().filter(bad).map(told).collect::<Vec<_>>()
    })
}

fn is_below(name: &str, top: &str) -> bool {
    name == top || name.strip_prefix(top).is_some_and(|rest| rest.starts_with("::"))
}

/// Fails with all findings, one per line.
#[track_caller]
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn modules_name_only_what_they_may_know() {
    let sources = sources();
    none(RULES.iter().flat_map(|rule| violations(rule, &sources)).collect());
}

#[test]
fn a_forbidden_name_is_found_however_it_is_written() {
    for code in [
        "use crate::store::Ledger;",
        "use crate::{key::Digest, store::{Ledger, StoreError}};",
        "use crate::{\n    verdict::Denial,\n    store,\n};",
        "use super::super::store;",
        "use super::{super::store::Ledger, route};",
        "fn f() { let x = crate::store::open(); }",
        "fn f(store: &dyn crate::store::Ledger) {}",
        "use redis::Client;",
        "use ::redis::Client;",
        "use {redis as r};",
        "pub use crate::control as other;",
    ] {
        let file = Source::of("src/gateway/usage.rs", code);
        assert!(RULES.iter().any(|rule| violations(rule, std::slice::from_ref(&file)).next().is_some()), "{code}");
    }
}

#[test]
fn what_is_not_a_name_is_not_found() {
    for code in [
        "// use crate::store::Ledger;",
        "/* crate::store */ fn f() {}",
        "fn f() -> &'static str { \"crate::store redis::Client\" }",
        "fn f() -> &'static str { r#\"crate::store \"quoted\" \"# }",
        "fn f(store: u8, redis: u8) -> char { '\"' }",
        "use crate::keyring::store_of; use crate::storefront::X;",
        "#[cfg(test)]\nmod tests {\n    use crate::store::Ledger;\n}\n",
    ] {
        let file = Source::of("src/gateway/forward.rs", code);
        none(RULES.iter().flat_map(|rule| violations(rule, std::slice::from_ref(&file)).collect::<Vec<_>>()).collect());
    }
}

#[test]
fn every_rule_is_about_files_that_exist() {
    // A rule about a file that was renamed would be silently dead.
    let sources = sources();
    let top_is_there = |of: &str| of.split_once('/').is_some_and(|(top, _)| sources.iter().any(|file| file.is_in(top)));
    let dead = |of: &&&str| top_is_there(of) && !sources.iter().any(|file| file.is_in(of));
    none(RULES.iter().flat_map(|rule| rule.of.iter().filter(dead).map(|of| format!("no file {of}"))).collect());
}

#[test]
fn no_file_has_more_code_than_a_reader_can_hold() {
    let long = |file: &Source| {
        let lines = file.code_lines();
        (lines > MOST_CODE_LINES).then(|| format!("{} has {lines} lines of code, {MOST_CODE_LINES} at most", file.path))
    };
    none(sources().iter().filter_map(long).collect());
}

#[test]
fn every_file_says_at_its_head_what_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = ["src", "tests", "benches"].iter().flat_map(|folder| source::below(root, folder));
    let silent = all.filter(|file| !file.text.starts_with("//! "));
    none(silent.map(|file| format!("{} does not begin with //!", file.path)).collect());
}

#[test]
fn no_module_is_called_after_nothing_in_particular() {
    let vague = |file: &Source| {
        let named = |part: &&str| FORBIDDEN_MODULES.contains(part);
        file.module.iter().map(String::as_str).find(named).map(|name| format!("{}: a module called {name}", file.path))
    };
    none(sources().iter().filter_map(vague).collect());
}

#[test]
fn unsafe_code_stays_in_the_slab() {
    let unsafe_elsewhere = |file: &Source| {
        let words = file.words();
        let found = ["unsafe", "unsafe_code"].into_iter().find(|word| words.contains(word));
        found.filter(|_| !file.is_in("meter/slab")).map(|word| format!("{} says {word}", file.path))
    };
    none(sources().iter().filter_map(unsafe_elsewhere).collect());
}

#[test]
fn nothing_is_left_to_be_done_in_a_macro() {
    let left = |file: &Source| {
        let words = file.words();
        let found = ["todo", "unimplemented", "dbg"].into_iter().find(|word| words.contains(word));
        found.map(|word| format!("{} says {word}!", file.path))
    };
    none(sources().iter().filter_map(left).collect());
}

#[test]
fn the_path_of_a_call_is_denied_every_panic() {
    let library = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let lines: Vec<&str> = library.lines().map(str::trim).collect();
    let mut seen = BTreeSet::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(module) = line.strip_prefix("pub mod ").map(|rest| rest.trim_end_matches(';')) else {
            continue;
        };
        if PATH_OF_A_CALL.contains(&module) {
            let above = lines[..at].last().copied().unwrap_or_default();
            let lints = ["cfg_attr(not(test), deny(", "clippy::indexing_slicing", "clippy::string_slice"];
            assert!(
                lints.iter().all(|lint| above.contains(lint)),
                "the line above `pub mod {module}` must deny panics"
            );
            seen.insert(module);
        }
    }
    assert!(seen.contains("meter"), "src/lib.rs does not look as this test expects");
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    for lint in ["unwrap_used", "expect_used", "panic", "unsafe_code"] {
        assert!(manifest.contains(&format!("{lint} = \"deny\"")), "{lint} is no longer denied in Cargo.toml");
    }
}
