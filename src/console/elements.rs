//! Small pieces that many pages are made of.

use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::text::Lang;

/// How the script writes an instant in the zone of the account; for the operator, in that of the browser.
#[derive(Clone, Copy)]
pub enum Clock {
    Day,
    Minute,
    /// "3 minutes ago".
    Ago,
    Hour,
    /// A day of the bill: the instant is noon of it in UTC, and it is not shifted to any zone.
    Date,
}

impl Clock {
    const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Minute => "minute",
            Self::Ago => "ago",
            Self::Hour => "hour",
            Self::Date => "date",
        }
    }
}

/// An instant (RFC 3339). In UTC until the script has written it in the reader's zone; UTC stays as the title.
pub fn time(at: &str, clock: Clock) -> Markup {
    let utc = utc(at);
    html! { time datetime=(at) data-clock=(clock.name()) title=(utc) { (utc) } }
}

/// `2026-01-31T09:05:07.123Z` as `2026-01-31 09:05 UTC`.
fn utc(at: &str) -> String {
    match (at.get(..10), at.get(11..16)) {
        (Some(day), Some(minute)) => format!("{day} {minute} UTC"),
        _ => at.to_owned(),
    }
}

pub fn badge(kind: &str, says: &str) -> Markup {
    html! { span class={ "badge " (kind) } { (says) } }
}

/// Text in the writing of machines, with a button that copies it.
pub fn copyable(lang: Lang, text: &str) -> Markup {
    html! {
        span .copyable {
            code { (text) }
            button type="button" .quiet.copy data-copy=(text) aria-label={ (lang.copy()) ": " (text) } { (lang.copy()) }
        }
    }
}

/// A place for what went wrong in a form; read out as it appears.
pub fn failure() -> Markup {
    html! { p .failure role="alert" hidden {} }
}

/// The head of a dialog, with a button that closes it.
pub fn dialog_head(lang: Lang, id: &str, title: &str) -> Markup {
    html! {
        header {
            h2 id={ (id) "-title" } { (title) }
            button type="button" .quiet.icon data-close aria-label=(lang.close()) { (cross()) }
        }
    }
}

pub fn cancel(lang: Lang) -> Markup {
    html! { button type="button" data-close { (lang.cancel()) } }
}

/// The field for a one-time code, and what is said about the next one.
pub fn code_field(lang: Lang, id: &str) -> Markup {
    html! {
        label for=(id) { (lang.code()) }
        input #(id) name="code" autocomplete="one-time-code" inputmode="text" maxlength="24" required autofocus
            spellcheck="false" autocapitalize="off" placeholder="123 456" aria-describedby={ (id) "-hint" };
        p .hint id={ (id) "-hint" } { (lang.code_hint()) }
        p .hint.countdown aria-live="polite" hidden {}
    }
}

pub fn cross() -> Markup {
    icon("M4 4l8 8M12 4l-8 8")
}

/// An icon of 16 × 16 from the path of its lines. It never says something that the text does not.
pub fn icon(path: &str) -> Markup {
    html! {
        svg .glyph viewBox="0 0 16 16" aria-hidden="true" focusable="false" {
            path d=(path) fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" {}
        }
    }
}

/// Whole numbers in groups of three.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes with the unit that leaves at most three digits before the point.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (number, 0);
    let mut tenths = 0;
    while value >= 1024 && unit + 1 < UNITS.len() {
        tenths = value % 1024 * 10 / 1024;
        value /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{value} {name}") } else { format!("{value}.{tenths} {name}") }
}

/// A value as part of a query.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// A page of this console, to go to: nothing that a browser could take for another site.
pub fn own_page(target: Option<&str>) -> Option<&str> {
    let target = target?;
    let plain = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (plain && target.starts_with("/console/") && !target.contains("//")).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!((count(999), count(1_234_567).replace('\u{202f}', " ")), ("999".into(), "1 234 567".into()));
        assert_eq!((bytes(1023), bytes(1536), bytes(5 << 30)), ("1023 B".into(), "1.5 KiB".into(), "5.0 GiB".into()));
    }

    #[test]
    fn only_pages_of_the_console_are_gone_to() {
        assert_eq!(own_page(Some("/console/usage?range=7d")), Some("/console/usage?range=7d"));
        for bad in
            ["https://evil.example", "//evil.example", "/\\evil", "/console/../x\n", "/console//x", "/v1/keys", ""]
        {
            assert_eq!(own_page(Some(bad)), None, "{bad}");
        }
    }
}
