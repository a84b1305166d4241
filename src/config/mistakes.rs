//! What is wrong with a configuration file: all of it at once, each mistake with its key and what to do.

use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The path of the key, with dots; empty where the file as a whole is wrong.
    pub key: String,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => f.write_str(&self.text),
            key => write!(f, "{key}: {}", self.text),
        }
    }
}

/// The mistakes of one file, at least one: keys that mean nothing first, then wrong values, then what does not fit.
#[derive(Debug, thiserror::Error)]
pub struct Mistakes {
    pub file: PathBuf,
    pub all: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, count) = (self.file.display(), self.all.len());
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{file} has {count} {noun}:")?;
        self.all.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Collects mistakes, the first one of each key: what follows from a mistake is not one of its own.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Mistake>);

impl Found {
    pub(super) fn note(&mut self, key: impl Into<String>, text: impl Into<String>) {
        let (key, text) = (key.into(), text.into());
        if key.is_empty() || !self.0.iter().any(|known| known.key == key) {
            self.0.push(Mistake { key, text });
        }
    }

    pub(super) fn or<T>(self, value: T, file: impl Into<PathBuf>) -> Result<T, Mistakes> {
        if self.0.is_empty() { Ok(value) } else { Err(Mistakes { file: file.into(), all: self.0 }) }
    }
}
