//! Keys that mean nothing, each with what was probably meant.

use toml::{Table, Value};

use super::mistakes::Found;
use super::settings::ALL;

/// Notes every key of the file that the table of settings does not know, and every section that is not one.
pub(super) fn find(root: &Table, found: &mut Found) {
    walk("", root, found);
}

fn walk(section: &str, table: &Table, found: &mut Found) {
    for (name, value) in table {
        let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        match (kind_of(&path), value) {
            (Known::Section, Value::Table(inner)) => walk(&path, inner, found),
            (Known::Section, _) => found.note(&path, format!("is a section; write [{path}] with keys below it")),
            (Known::Key, _) => {}
            (Known::Nothing, _) => {
                let advice = advice(section, name);
                let noun = if section.is_empty() { "section" } else { "key" };
                found.note(path, format!("there is no such {noun}; {advice}"));
            }
        }
    }
}

enum Known {
    Section,
    Key,
    Nothing,
}

fn kind_of(path: &str) -> Known {
    if ALL.iter().any(|row| row.path == path) {
        return Known::Key;
    }
    let inside = |row: &str| row.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    if ALL.iter().any(|row| inside(row.path)) { Known::Section } else { Known::Nothing }
}

/// What was probably meant: a key of the same section that looks like it, or the same key of another section.
fn advice(section: &str, name: &str) -> String {
    let mut siblings: Vec<_> = ALL.iter().filter_map(|row| child_of(section, row.path)).collect();
    siblings.dedup();
    let distance = |sibling: &&str| strsim::damerau_levenshtein(sibling, name);
    let near = siblings.iter().copied().min_by_key(distance).filter(|sibling| distance(sibling) <= 1 + name.len() / 4);
    if let Some(sibling) = near {
        return format!("did you mean {sibling}?");
    }
    if let Some(row) = ALL.iter().find(|row| row.path.ends_with(&format!(".{name}"))) {
        return format!("did you mean {}?", row.path);
    }
    format!("known here are {}", siblings.join(", "))
}

/// The name that stands directly below `section` on the way to `path`.
fn child_of<'a>(section: &str, path: &'a str) -> Option<&'a str> {
    let below = if section.is_empty() { path } else { path.strip_prefix(section)?.strip_prefix('.')? };
    below.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::mistakes::Mistakes;

    fn found(text: &str) -> Vec<String> {
        let mut found = Found::default();
        find(&text.parse().unwrap(), &mut found);
        let mistakes = found.or((), "").err().map(|mistakes: Mistakes| mistakes.all).unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_misspelt_key_or_section_is_answered_with_the_right_one() {
        assert_eq!(found("[gatewy]\n"), ["gatewy: there is no such section; did you mean gateway?"]);
        assert_eq!(found("[store]\nleas = 1"), ["store.leas: there is no such key; did you mean lease?"]);
        let far = found("[secrets]\nxyz = 1");
        assert_eq!(
            far,
            ["secrets.xyz: there is no such key; known here are pepper_file, previous_pepper_file, sealing_key_file, \
             previous_sealing_key_file"]
        );
    }

    #[test]
    fn a_key_in_the_wrong_section_is_answered_with_the_right_section() {
        assert_eq!(
            found("[gateway]\nidle = 1"),
            ["gateway.idle: there is no such key; did you mean gateway.limits.idle?"]
        );
    }

    #[test]
    fn a_section_must_be_a_section() {
        assert_eq!(found("gateway = 1"), ["gateway: is a section; write [gateway] with keys below it"]);
    }
}
