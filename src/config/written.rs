//! The forms in which values are written in the file: durations, sizes, addresses, names and lists of them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Value;

use super::{HttpDenials, RedisUrl, SentinelUrl};

/// A value that is not what its key asks for.
#[derive(Debug)]
pub struct Wrong {
    /// The place in a list, from 0.
    pub at: Option<usize>,
    /// What stands there, as TOML, cut short where it is long.
    pub got: String,
    /// What should stand there, with its article.
    pub wanted: &'static str,
}

impl Wrong {
    fn new(got: &Value, wanted: &'static str) -> Self {
        const SHOWN: usize = 60;
        let text = got.to_string();
        let cut: String = text.chars().take(SHOWN).collect();
        let got = if cut.len() < text.len() { format!("{cut}…") } else { text };
        Self { at: None, got, wanted }
    }
}

/// A type that can be written as a value of the file.
pub trait Form: Sized + PartialOrd {
    fn read(value: &Value) -> Result<Self, Wrong>;
}

/// Bytes, written as a plain number or with `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    pub fn usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub fn u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

/// Seconds east of UTC, written `+08:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcOffset(pub i32);

/// A word of 1 to 253 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub String);

/// The kinds of store that can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreName {
    Embedded,
    Redis,
}

/// Reads a text by `parse`; any other kind of value is wrong.
fn text<T>(value: &Value, wanted: &'static str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Wrong> {
    value.as_str().and_then(parse).ok_or_else(|| Wrong::new(value, wanted))
}

fn number<T: TryFrom<i64>>(value: &Value) -> Result<T, Wrong> {
    let read = value.as_integer().and_then(|number| T::try_from(number).ok());
    read.ok_or_else(|| Wrong::new(value, "a whole number"))
}

/// Splits `"250ms"` into 250 and `"ms"`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

impl Form for Duration {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "a duration", duration)
    }
}

/// A duration as it is written: `250ms`, `5s`, `2m`, `1h`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

impl Form for Size {
    fn read(value: &Value) -> Result<Self, Wrong> {
        if let Some(bytes) = value.as_integer().and_then(|number| u64::try_from(number).ok()) {
            return Ok(Self(bytes));
        }
        text(value, "a size", |text| {
            let (number, unit) = split_unit(text)?;
            let bytes = match unit {
                "" | "B" => 1,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                _ => return None,
            };
            number.checked_mul(bytes).map(Self)
        })
    }
}

impl Form for u32 {
    fn read(value: &Value) -> Result<Self, Wrong> {
        number(value)
    }
}

impl Form for usize {
    fn read(value: &Value) -> Result<Self, Wrong> {
        number(value)
    }
}

impl Form for bool {
    fn read(value: &Value) -> Result<Self, Wrong> {
        value.as_bool().ok_or_else(|| Wrong::new(value, "true or false"))
    }
}

impl Form for SocketAddr {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "an IP address with a port", |text| text.parse().ok())
    }
}

/// A single address is a network of its own.
impl Form for IpNet {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "a network like \"10.0.0.0/8\"", |text| {
            text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Self::from))
        })
    }
}

impl Form for PathBuf {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "a path", |text| (!text.is_empty() && !text.contains('\0')).then(|| Self::from(text)))
    }
}

impl Form for Name {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "a name of 1 to 253 visible ASCII characters", |text| {
            let fits = (1..=253).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| Self(text.to_owned()))
        })
    }
}

impl Form for HttpDenials {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "\"status\" or \"in_body\"", |text| match text {
            "status" => Some(Self::Status),
            "in_body" => Some(Self::InBody),
            _ => None,
        })
    }
}

impl Form for StoreName {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "a kind of store", |text| match text {
            "embedded" => Some(Self::Embedded),
            "redis" => Some(Self::Redis),
            _ => None,
        })
    }
}

/// It may hold a password, so a wrong one is not quoted.
impl Form for RedisUrl {
    fn read(value: &Value) -> Result<Self, Wrong> {
        let host = |url: &str| url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://")).map(str::len);
        let read = value.as_str().filter(|url| host(url).is_some_and(|length| length > 0));
        let wrong = || Wrong { at: None, got: "\"…\"".to_owned(), wanted: "an address like redis://host:port" };
        read.map(|url| Self(url.to_owned())).ok_or_else(wrong)
    }
}

impl Form for SentinelUrl {
    fn read(value: &Value) -> Result<Self, Wrong> {
        let (host, port) = value.as_str().and_then(|text| text.rsplit_once(':')).unwrap_or_default();
        let is_address = host.contains("://") && RedisUrl::read(value).is_ok();
        let is_host = !host.is_empty() && !host.contains(['/', '@']) && port.parse::<u16>().is_ok_and(|port| port > 0);
        let wrong = || Wrong { at: None, got: "\"…\"".to_owned(), wanted: "a sentinel like host:26379" };
        let read = value.as_str().filter(|_| is_address || is_host);
        read.map(|text| Self(text.to_owned())).ok_or_else(wrong)
    }
}

/// `+HH:MM` or `-HH:MM`, at most 14 hours: what time zones have.
impl Form for UtcOffset {
    fn read(value: &Value) -> Result<Self, Wrong> {
        text(value, "a UTC offset", |text| {
            let (sign, rest) = text.split_at_checked(1)?;
            let sign = match sign {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let (hours, minutes) = rest.split_once(':')?;
            let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            if !two_digits(hours) || !two_digits(minutes) {
                return None;
            }
            let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
            let seconds = hours * 3600 + minutes * 60;
            (minutes < 60 && seconds <= 14 * 3600).then_some(Self(sign * seconds))
        })
    }
}

impl<T: Form> Form for Vec<T> {
    fn read(value: &Value) -> Result<Self, Wrong> {
        let list = value.as_array().ok_or_else(|| Wrong::new(value, "a list"))?;
        let read = |(at, value)| T::read(value).map_err(|wrong| Wrong { at: Some(at), ..wrong });
        list.iter().enumerate().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<T: Form>(text: &str) -> Result<T, Wrong> {
        T::read(&Value::String(text.to_owned()))
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(read::<Duration>("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(read::<Duration>("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "75", "s", "-1s", "1.5s", "1 s", "1d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(read::<Duration>(bad).is_err(), "{bad}");
        }
        assert!(Duration::read(&Value::Integer(75)).is_err());
    }

    #[test]
    fn sizes_are_binary_or_plain() {
        assert_eq!(read::<Size>("16MiB").unwrap().0, 16 << 20);
        assert_eq!(read::<Size>("100").unwrap().0, 100);
        assert_eq!(Size::read(&Value::Integer(32768)).unwrap().0, 32768);
        for bad in ["16MB", "16 MiB", "MiB", "-1", "1.5KiB", "99999999999GiB"] {
            assert!(read::<Size>(bad).is_err(), "{bad}");
        }
        assert!(Size::read(&Value::Integer(-1)).is_err());
    }

    #[test]
    fn an_offset_has_a_sign_two_digits_and_two_digits() {
        assert_eq!(read::<UtcOffset>("+08:00").unwrap().0, 8 * 3600);
        assert_eq!(read::<UtcOffset>("-03:30").unwrap().0, -(3 * 3600 + 1800));
        for bad in ["08:00", "+8:00", "+08", "+08:60", "+14:01", "+0a:00", "++8:00", "+08:00:00", "é8:00", ""] {
            assert!(read::<UtcOffset>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_element_is_named_by_its_place() {
        let list = Value::Array(vec!["127.0.0.1:1".into(), "localhost:8080".into()]);
        assert_eq!(Vec::<SocketAddr>::read(&list).unwrap_err().at, Some(1));
    }

    #[test]
    fn a_single_address_is_a_network() {
        assert_eq!(read::<IpNet>("10.1.2.3").unwrap(), read::<IpNet>("10.1.2.3/32").unwrap());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_form_panic(text in any::<String>()) {
            let _ = (read::<Duration>(&text), read::<Size>(&text), read::<UtcOffset>(&text), read::<Name>(&text));
        }
    }
}
