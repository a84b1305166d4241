//! What people write: names, reasons, e-mail addresses. Checked once, when they come in.

use serde::{Deserialize, Deserializer};

use super::request::broken_rule;

/// A short text for people, such as a key's name: 1 to 100 characters without control characters, space around it trimmed.
/// Empty ones are absent.
pub fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?.unwrap_or_default();
    let trimmed = text.trim();
    let fits = trimmed.chars().count() <= 100 && !trimmed.chars().any(char::is_control);
    match (fits, trimmed.is_empty()) {
        (false, _) => Err(broken_rule("a name is too long or has control characters")),
        (true, true) => Ok(None),
        (true, false) => Ok(Some(trimmed.to_owned())),
    }
}

/// Why the operator did something: 1 to 500 characters without control characters.
pub fn reason<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let trimmed = text.trim();
    let fits = (1..=500).contains(&trimmed.chars().count()) && !trimmed.chars().any(char::is_control);
    if fits { Ok(trimmed.to_owned()) } else { Err(broken_rule("a reason has 1 to 500 characters")) }
}

/// An e-mail address in lower case. Only its form is checked: something, an @, something, at most 254 bytes of visible text.
pub fn email<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let address = text.trim().to_lowercase();
    let visible = !address.chars().any(|c| c.is_whitespace() || c.is_control());
    let parts = address.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    let fits = visible && parts && address.len() <= 254;
    if fits { Ok(address) } else { Err(broken_rule("this is not an e-mail address")) }
}
