//! A Rust file as the tests of the tree see it: its module, its code without comments, texts and tests, and the paths
//! named in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

pub struct Source {
    /// From the root of the tree.
    pub path: String,
    pub text: String,
    /// The module below the crate: `["gateway", "usage"]`.
    pub module: Vec<String>,
    /// Without comments, without what stands in quotes, without the tests at the end.
    code: String,
}

/// All Rust files below a folder of the tree.
pub fn below(root: &Path, folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten();
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.push(Source::of(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

impl Source {
    pub fn of(path: &str, text: &str) -> Self {
        let inner = path.split_once('/').map_or(path, |(_, inner)| inner);
        let inner = inner.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = inner.split('/').map(str::to_owned).collect();
        Self { path: path.to_owned(), text: text.to_owned(), module, code: without_tests(&without_noise(text)) }
    }

    /// Whether the file is this module (`auth/loader`) or below it.
    pub fn is_in(&self, module: &str) -> bool {
        let wanted: Vec<&str> = module.split('/').collect();
        self.module.len() >= wanted.len() && self.module.iter().zip(&wanted).all(|(mine, theirs)| mine == theirs)
    }

    pub fn code_lines(&self) -> usize {
        self.code.lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Every identifier and keyword of the code.
    pub fn words(&self) -> BTreeSet<&str> {
        self.code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect()
    }

    /// Every path that is named, with groups spelt out and `super` resolved to `crate::…`.
    pub fn names(&self) -> BTreeSet<String> {
        let tokens = tokens(&self.code);
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            at = path(&tokens, at, &[], &mut paths).max(at + 1);
        }
        paths.into_iter().filter_map(|path| self.resolved(path)).collect()
    }

    fn resolved(&self, path: Vec<String>) -> Option<String> {
        let ups = path.iter().filter(|part| *part == "super").count();
        if ups == 0 {
            return Some(path.join("::"));
        }
        let from = self.module.len().checked_sub(ups)?;
        let down = path.iter().filter(|part| *part != "super" && *part != "self").cloned();
        let parts: Vec<String> =
            ["crate".to_owned()].into_iter().chain(self.module[..from].to_vec()).chain(down).collect();
        Some(parts.join("::"))
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, `::`, and single characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Reads a path that begins at `at` into `paths`, and returns the place behind it.
fn path(tokens: &[&str], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    // `use ::redis` and `dyn ::redis::Client` do not name things below `use` and `dyn`.
    if matches!(tokens.get(at), Some(&("use" | "dyn" | "impl" | "mut" | "in" | "as" | "return"))) {
        return at + 1;
    }
    let mut parts = prefix.to_vec();
    if tokens.get(at) == Some(&"::") {
        at += 1;
    }
    while let Some(word) = tokens.get(at).filter(|token| token.starts_with(is_word)) {
        parts.push((*word).to_owned());
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    let behind_colons = at > 0 && tokens.get(at - 1) == Some(&"::");
    if tokens.get(at) == Some(&"{") && behind_colons {
        return group(tokens, at + 1, &parts, paths);
    }
    // A single word is a path only where a name is brought in; elsewhere it may be any variable.
    let brought_in = parts.len() > 1 || at >= 2 && matches!(tokens[at - 2], "use" | "{" | ",") && renamed(tokens, at);
    if brought_in {
        paths.push(parts);
    }
    at
}

/// `name as other` and `use name;`.
fn renamed(tokens: &[&str], at: usize) -> bool {
    tokens.get(at) == Some(&"as") || (tokens.get(at) == Some(&";") && tokens.get(at.wrapping_sub(2)) == Some(&"use"))
}

/// `{a, b::c, d::{e}}` behind `prefix`.
fn group(tokens: &[&str], mut at: usize, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    while let Some(token) = tokens.get(at) {
        match *token {
            "}" => return at + 1,
            "," => at += 1,
            "as" => at += 2,
            _ => at = path(tokens, at, prefix, paths).max(at + 1),
        }
    }
    at
}

/// What the compiler reads: comments left out, texts and characters emptied.
fn without_noise(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' if !code.ends_with(is_word) && raw(rest).is_some() => raw(rest).unwrap_or(1),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of the text in quotes at the beginning.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the raw text at the beginning, if there is one.
fn raw(rest: &str) -> Option<usize> {
    let behind = rest.strip_prefix('r')?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let inner = behind[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + inner.find(&end)? + end.len())
}

/// The length of the character at the beginning; 0 where it is a lifetime.
fn character(rest: &str) -> usize {
    let mut inner = rest.chars().skip(1);
    let (first, second) = (inner.next(), inner.next());
    match (first, second) {
        (Some('\\'), _) => rest[3..].find('\'').map_or(0, |end| 3 + end + 1),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

/// Everything before the tests, which stand at the end of a file.
fn without_tests(code: &str) -> String {
    let end = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
    code[..end].to_owned()
}
