//! Which of several forms of an answer a caller wants most (RFC 9110, section 12.5.1). Pure.

use std::cmp::Reverse;

use http::HeaderMap;
use http::header::ACCEPT;

/// One range of an `Accept` header.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// In thousandths.
    quality: u16,
}

/// How much an offer is wanted: by quality, then by how exactly it is named, then by who is named first.
type Wanted = (u16, usize, Reverse<usize>);

/// The most wanted of the offers, each with its whole content type; the first of those that are wanted alike. None where nothing is
/// asked for, or nothing that there is: a caller is then better served with what it did not ask for than with nothing.
pub fn preferred<T: Copy>(headers: &HeaderMap, offers: &[(T, &str)]) -> Option<T> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(Range::parse).collect();
    let mut best: Option<(Wanted, T)> = None;
    for (offer, content_type) in offers {
        if let Some(wanted) = Range::parse(content_type).and_then(|offered| wanted(&ranges, &offered))
            && best.is_none_or(|(most, _)| wanted > most)
        {
            best = Some((wanted, *offer));
        }
    }
    best.map(|(_, offer)| offer)
}

/// The range that names the offer most exactly decides, also where it says no.
fn wanted(ranges: &[Range<'_>], offered: &Range<'_>) -> Option<Wanted> {
    let fitting = ranges.iter().enumerate().filter_map(|(at, range)| Some((range.names(offered)?, Reverse(at), range)));
    let (exactness, at, range) = fitting.max_by_key(|(exactness, at, _)| (*exactness, *at))?;
    (range.quality > 0).then_some((range.quality, exactness, at))
}

impl<'a> Range<'a> {
    /// None where it is not a range, or its quality is not one.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut range = Self { kind, subtype, parameters: Vec::new(), quality: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            if name.eq_ignore_ascii_case("q") {
                range.quality = quality(value)?;
            } else {
                range.parameters.push((name, value));
            }
        }
        Some(range)
    }

    /// How exactly it names the offer; None where it names something else. A parameter that only one of the two has does not part
    /// them: scrapers send ones that no answer has, such as `escaping`.
    fn names(&self, offered: &Self) -> Option<usize> {
        let exactness = match (self.kind, self.subtype) {
            ("*", "*") => 0,
            (kind, "*") if kind.eq_ignore_ascii_case(offered.kind) => 1,
            (kind, subtype)
                if kind.eq_ignore_ascii_case(offered.kind) && subtype.eq_ignore_ascii_case(offered.subtype) =>
            {
                2
            }
            _ => return None,
        };
        let mut same = 0;
        for (name, value) in &self.parameters {
            let other = offered.parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            match other {
                Some((_, other)) if !other.eq_ignore_ascii_case(value) => return None,
                Some(_) => same += 1,
                None => {}
            }
        }
        Some(exactness + same)
    }
}

/// `0`, `0.5`, `1.000`, in thousandths.
fn quality(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() != 1 || fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    let quality = whole.parse::<u16>().ok()? * 1000 + thousandths;
    (quality <= 1000).then_some(quality)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OFFERS: [(char, &str); 3] =
        [('a', "text/plain; version=0.0.4; charset=utf-8"), ('b', "text/csv"), ('c', "application/x.y; proto=P")];

    fn asked(accept: &str) -> Option<char> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]);
        preferred(&headers, &OFFERS)
    }

    #[test]
    fn the_greater_quality_wins_then_the_more_exact_name_then_the_earlier_one() {
        assert_eq!(asked("text/plain;q=0.3, text/csv;q=0.5"), Some('b'));
        assert_eq!(asked("text/csv, text/plain"), Some('b'));
        assert_eq!(asked("text/csv, text/plain;version=0.0.4"), Some('a'));
        assert_eq!(asked("*/*"), Some('a'));
        assert_eq!(asked("text/*;q=0.2, application/*;q=0.3"), Some('c'));
        assert_eq!(asked("*/*;q=0.1, text/csv"), Some('b'));
    }

    #[test]
    fn what_is_refused_by_name_is_not_given_by_a_wildcard() {
        assert_eq!(asked("text/plain;q=0, */*;q=0.1"), Some('b'));
        assert_eq!(asked("text/*;q=0, */*;q=0.1"), Some('c'));
        assert_eq!(asked("*/*;q=0"), None);
    }

    #[test]
    fn a_parameter_that_both_have_must_be_the_same() {
        assert_eq!(asked("text/plain;version=1.0.0;q=0.9, text/csv;q=0.1"), Some('b'));
        assert_eq!(asked("application/x.y;proto=Q, text/csv;q=0.1"), Some('b'));
        assert_eq!(asked("application/x.y; PROTO=\"p\"; escaping=allow-utf-8, text/csv;q=0.1"), Some('c'));
        assert_eq!(asked("TEXT/CSV ; q=0.1"), Some('b'));
    }

    #[test]
    fn nonsense_wants_nothing() {
        for nonsense in
            ["", "text", "text/csv;q=2", "text/csv;q=-1", "text/csv;q=0.0001", "text/csv;q=1.5", "image/png"]
        {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
        assert_eq!(preferred(&HeaderMap::new(), &OFFERS), None);
    }
}
