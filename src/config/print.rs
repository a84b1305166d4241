//! The documented default file, made from the table of settings.

use super::settings::{ALL, Row, SECTIONS, Written};

const HEAD: &str = "\
# The configuration of Tollgate: every key, what it is for, and its default. A key behind a # has no default; what
# stands there is an example. Keys may be left out, and so may sections. Relative paths are relative to this file.
# Durations are written like \"250ms\", \"5s\", \"2m\", \"1h\"; sizes like 100, \"32KiB\", \"16MiB\", \"1GiB\".
# Made by `tollgate config --print-default`.
";

/// The whole file. Reading it says the same as leaving every key out.
pub fn default_file() -> String {
    let mut file = HEAD.to_owned();
    for (section, doc) in SECTIONS {
        file.push_str(&format!("\n# {doc}\n[{section}]\n"));
        ALL.iter().filter(|row| section_of(row) == *section).for_each(|row| key(&mut file, section, row));
    }
    file
}

fn key(file: &mut String, section: &str, row: &Row) {
    let name = name_in(section, row.path);
    for line in wrapped(&sentence(row)) {
        file.push_str(&format!("# {line}\n"));
    }
    match row.written {
        Written::Default(text) => file.push_str(&format!("{name} = {}\n", one_line(text))),
        Written::Example(text) => file.push_str(&format!("# {name} = {}\n", one_line(text))),
    }
}

fn sentence(row: &Row) -> String {
    let doc = row.doc.trim();
    match row.range {
        Some((low, high)) => format!("{doc} From {} to {}.", low.trim_matches('"'), high.trim_matches('"')),
        None => doc.to_owned(),
    }
}

/// The longest section that the key stands in.
fn section_of(row: &Row) -> &'static str {
    let holds = |section: &str| !name_in(section, row.path).is_empty();
    SECTIONS.iter().map(|(section, _)| *section).filter(|section| holds(section)).max_by_key(|s| s.len()).unwrap_or("")
}

/// The key as written below the head of its section; empty where it does not stand there.
fn name_in<'a>(section: &str, path: &'a str) -> &'a str {
    path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default()
}

/// The texts of the table come from source that may be broken over lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wrapped(text: &str) -> Vec<String> {
    const WIDTH: usize = 110;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.len() + 1 + word.len() <= WIDTH) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A file with both planes and only those keys that `value` gives a text for.
#[cfg(test)]
pub(super) fn with_values(value: impl Fn(&Row) -> Option<&'static str>) -> String {
    let mut file = String::new();
    for (section, _) in SECTIONS {
        file.push_str(&format!("[{section}]\n"));
        for row in ALL.iter().filter(|row| section_of(row) == *section) {
            if let Some(text) = value(row) {
                file.push_str(&format!("{} = {}\n", name_in(section, row.path), one_line(text)));
            }
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_table_is_printed_in_a_section() {
        for row in ALL {
            let section = section_of(row);
            assert!(!section.is_empty(), "{}", row.path);
            assert!(default_file().contains(&format!("{} = ", name_in(section, row.path))), "{}", row.path);
        }
    }

    #[test]
    fn the_example_file_of_the_tree_is_the_default_file() {
        let example = include_str!("../../deploy/config.example.toml");
        assert!(example == default_file(), "run `tollgate config --print-default > deploy/config.example.toml`");
    }
}
