//! One-time codes (RFC 6238): SHA-1, 6 digits, 30 s, one step of tolerance either way. Pure: the time is an argument.

use std::fmt;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

use crate::time::WallTime;

pub const STEP_SECONDS: u64 = 30;
const DIGITS: usize = 6;
const SECRET_BYTES: usize = 20;

/// Which 30 s since 1970 a code belongs to. An account's codes must go up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub u64);

impl Step {
    /// How long until an authenticator shows a code later than this one.
    pub fn wait_for_next(self, now: WallTime) -> Duration {
        WallTime(self.0.saturating_add(1).saturating_mul(STEP_SECONDS * 1000)).since(now)
    }
}

/// What an authenticator shares with us: 160 random bits. Shown once, sealed at rest, never printed.
#[derive(Clone)]
pub struct TotpSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl TotpSecret {
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// None where there are not 20 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// Reads RFC 4648 base32, without regard to case, spaces and padding. None where it is not one of 20 bytes.
    pub fn from_base32(text: &str) -> Option<Self> {
        let kept = text.bytes().filter(|byte| !matches!(byte, b' ' | b'='));
        let clean = Zeroizing::new(kept.map(|byte| byte.to_ascii_uppercase()).collect::<Vec<_>>());
        let bytes = Zeroizing::new(BASE32_NOPAD.decode(&clean).ok()?);
        Self::from_bytes(&bytes)
    }

    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// RFC 4648 base32, upper case, without padding: what a person types into an authenticator.
    pub fn to_base32(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE32_NOPAD.encode(self.expose()))
    }

    /// The `otpauth:` URI behind an authenticator's QR code.
    pub fn to_uri(&self, email: &str) -> Zeroizing<String> {
        let label = utf8_percent_encode(email, NON_ALPHANUMERIC);
        let (secret, parameters) = (self.to_base32(), "issuer=Tollgate&algorithm=SHA1&digits=6&period=30");
        Zeroizing::new(format!("otpauth://totp/Tollgate:{label}?secret={}&{parameters}", secret.as_str()))
    }

    /// The code an authenticator shows at `now`.
    pub fn code_at(&self, now: WallTime) -> Zeroizing<String> {
        Zeroizing::new(self.totp().generate(now.unix_seconds()).to_string())
    }

    /// The step that `code` belongs to, if it is one of the three around `now`. Says nothing about whether it was used.
    pub fn step_of(&self, code: &str, now: WallTime) -> Option<Step> {
        let well_formed = code.len() == DIGITS && code.bytes().all(|byte| byte.is_ascii_digit());
        let step = if well_formed { self.totp().check(code, now.unix_seconds()) } else { None };
        step.map(Step)
    }

    fn totp(&self) -> Totp {
        let settings = Builder::new().with_digits(6).with_skew(1).with_step_duration(STEP_SECONDS);
        settings.with_secret(Secret::new_stack(*self.0)).build_noncompliant()
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> WallTime {
        WallTime(seconds * 1000)
    }

    #[test]
    fn the_codes_are_those_of_rfc_6238() {
        // The last six digits of the SHA-1 rows in appendix B.
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(secret.code_at(at(seconds)).as_str(), code);
            assert_eq!(secret.step_of(code, at(seconds)), Some(Step(seconds / 30)));
        }
    }

    #[test]
    fn a_code_is_good_one_step_early_and_one_step_late_and_no_further() {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").unwrap();
        let code = secret.code_at(at(3000));
        for (seconds, found) in [(2939, false), (2970, true), (3029, true), (3059, true), (3060, false)] {
            assert_eq!(secret.step_of(&code, at(seconds)).is_some(), found, "at {seconds}");
        }
    }

    #[test]
    fn what_is_not_six_digits_is_no_code() {
        let secret = TotpSecret::random().unwrap();
        for hostile in ["", "12345", "1234567", "12 345", "+12345", "１２３４５６", "00000\u{0}"] {
            assert_eq!(secret.step_of(hostile, at(59)), None);
        }
    }

    #[test]
    fn the_next_code_comes_when_the_used_one_is_over() {
        assert_eq!(Step(100).wait_for_next(at(3000)), Duration::from_secs(30));
        assert_eq!(Step(101).wait_for_next(at(3029)), Duration::from_secs(31));
        assert_eq!(Step(99).wait_for_next(at(3000)), Duration::ZERO);
    }

    #[test]
    fn a_secret_is_base32_without_padding_and_never_printed() {
        let secret = TotpSecret::random().unwrap();
        let text = secret.to_base32();
        assert!(text.len() == 32 && text.bytes().all(|c| c.is_ascii_uppercase() || (b'2'..=b'7').contains(&c)));
        assert_eq!(TotpSecret::from_base32(&text.to_lowercase()).unwrap().expose(), secret.expose());
        assert!(secret.to_uri("a b@c").starts_with("otpauth://totp/Tollgate:a%20b%40c?secret="));
        assert_eq!(format!("{secret:?}"), "TotpSecret(…)");
    }
}
