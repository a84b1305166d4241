//! Every text of the console, in every language: one table for the pages, one for what the script and the API's codes say.

use std::fmt::Display;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    En,
    Zh,
}

impl Lang {
    /// The language of a tag such as `zh-CN`.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.split('-').next().unwrap_or_default();
        match primary.to_ascii_lowercase().as_str() {
            "en" => Some(Self::En),
            "zh" => Some(Self::Zh),
            _ => None,
        }
    }

    pub const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }

    pub const fn other(self) -> Self {
        match self {
            Self::En => Self::Zh,
            Self::Zh => Self::En,
        }
    }

    pub const fn own_name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::Zh => "中文",
        }
    }

    const fn of(self, en: &'static str, zh: &'static str) -> &'static str {
        match self {
            Self::En => en,
            Self::Zh => zh,
        }
    }

    /// What a name of [`SCRIPT`] says.
    pub fn script_text(self, name: &str) -> Option<&'static str> {
        SCRIPT.iter().find(|(known, ..)| *known == name).map(|(_, en, zh)| self.of(en, zh))
    }

    /// What an action of the audit log says.
    pub fn action(self, name: &str) -> Option<&'static str> {
        ACTIONS.iter().find(|(known, ..)| *known == name).map(|(_, en, zh)| self.of(en, zh))
    }

    /// The texts of the script, as a JSON object.
    pub fn script_texts(self) -> String {
        let texts = SCRIPT.iter().map(|(name, en, zh)| ((*name).to_owned(), self.of(en, zh).into()));
        serde_json::Value::Object(texts.collect()).to_string()
    }
}

/// Puts values in the places `{0}`, `{1}`, … of a text.
pub fn fill(text: &str, values: &[&dyn Display]) -> String {
    let place =
        |text: String, (at, value): (usize, &&dyn Display)| text.replace(&format!("{{{at}}}"), &value.to_string());
    values.iter().enumerate().fold(text.to_owned(), place)
}

mod pages;
mod script;

use script::{ACTIONS, SCRIPT};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::control::error::Kind;

    #[test]
    fn every_code_of_the_api_has_a_text_in_both_languages() {
        for kind in Kind::ALL {
            for lang in [Lang::En, Lang::Zh] {
                assert!(lang.script_text(kind.code()).is_some(), "{} in {}", kind.code(), lang.tag());
            }
        }
    }

    #[test]
    fn every_text_is_written_once_in_both_languages_and_has_the_same_places() {
        let mut names = HashSet::new();
        let script = SCRIPT.iter().chain(ACTIONS).copied();
        for (name, en, zh) in pages::ALL.iter().copied().chain(script) {
            assert!(names.insert(name), "{name} is there twice");
            assert!(!en.is_empty() && !zh.is_empty(), "{name}");
            assert!(zh == en || !zh.is_ascii(), "{name} is not translated");
            for place in ["{0}", "{1}", "{2}", "{3}"] {
                assert_eq!(en.contains(place), zh.contains(place), "{place} of {name}");
            }
        }
    }

    #[test]
    fn places_are_filled_in_any_order() {
        assert_eq!(fill("{1} of {0}", &[&3, &"two"]), "two of 3");
    }

    #[test]
    fn the_texts_of_the_script_are_json() {
        let texts: serde_json::Value = serde_json::from_str(&Lang::Zh.script_texts()).unwrap();
        assert_eq!(texts["copied"], Lang::Zh.script_text("copied").unwrap());
    }
}
