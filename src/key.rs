//! API keys: their form, their digest, and how a person sees one. No key in here can be printed by accident.

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// `dvk_` + 40 random base62 characters + 6 of checksum (design, section 4).
pub const PREFIX: &str = "dvk_";
const RANDOM: usize = 40;
const CHECKSUM: usize = 6;
/// The length of a generated key in bytes.
pub const GENERATED_LEN: usize = PREFIX.len() + RANDOM + CHECKSUM;
/// The longest key accepted, in bytes; imported keys may have any form.
pub const MAX_LEN: usize = 256;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key that passed the check of its form, borrowed from the request it came with.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a>(&'a [u8]);

/// The bytes cannot be a key: empty, too long, not visible ASCII, or of our own form with a wrong checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: it must be 1 to 256 visible ASCII characters, and a dvk_ key must be complete")]
pub struct MalformedKey;

impl<'a> PresentedKey<'a> {
    /// Checks the form only, without any lookup.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MalformedKey> {
        if let Some(rest) = bytes.strip_prefix(PREFIX.as_bytes()) {
            return if has_generated_form(rest) { Ok(Self(bytes)) } else { Err(MalformedKey) };
        }
        let opaque = !bytes.is_empty() && bytes.len() <= MAX_LEN && are_all(bytes, u8::is_ascii_graphic);
        if opaque { Ok(Self(bytes)) } else { Err(MalformedKey) }
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedKey(…)")
    }
}

fn has_generated_form(rest: &[u8]) -> bool {
    let Some((random, checksum)) = rest.split_at_checked(RANDOM) else {
        return false;
    };
    checksum == checksum_of(random) && are_all(random, u8::is_ascii_alphanumeric)
}

/// Looks at every byte, without a branch for each: most keys are good, and many bytes are looked at in one step then.
fn are_all(bytes: &[u8], so: impl Fn(&u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & so(byte))
}

/// CRC-32 of the random part as base62 digits, most significant first.
fn checksum_of(random: &[u8]) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(random);
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get((rest % 62) as usize).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits
}

/// A whole key as text: shown once at creation, sealed at rest. Wiped on drop, never printed.
#[derive(Clone)]
pub struct KeyText(SecretString);

impl KeyText {
    /// A new key from the operating system's generator (238 bits of it are random).
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut text = String::with_capacity(GENERATED_LEN);
        text.push_str(PREFIX);
        let mut pool = [0_u8; 64];
        while text.len() < PREFIX.len() + RANDOM {
            getrandom::fill(&mut pool)?;
            // 248 = 4 × 62: bytes above it would make some characters likelier than others.
            let fair = pool.iter().filter(|byte| **byte < 248);
            let wanted = PREFIX.len() + RANDOM - text.len();
            text.extend(
                fair.filter_map(|byte| BASE62.get(usize::from(byte % 62))).take(wanted).map(|c| char::from(*c)),
            );
        }
        let checksum = checksum_of(text.as_bytes().get(PREFIX.len()..).unwrap_or_default());
        text.extend(checksum.map(char::from));
        zeroize::Zeroize::zeroize(&mut pool);
        Ok(Self(SecretString::from(text)))
    }

    /// A key that was made elsewhere. Its form is checked like that of a presented one.
    pub fn import(text: String) -> Result<Self, MalformedKey> {
        let text = SecretString::from(text);
        PresentedKey::parse(text.expose_secret().as_bytes())?;
        Ok(Self(text))
    }

    /// The key itself. For the answer to create and view, and for sealing; nowhere else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn presented(&self) -> PresentedKey<'_> {
        PresentedKey(self.expose().as_bytes())
    }

    /// How a list shows the key: enough to tell one's own keys apart, too little to use.
    pub fn masked(&self) -> String {
        let text = self.expose();
        let shown = if text.len() >= 24 { 4 } else { usize::from(text.len() >= 12) * 2 };
        let head = if text.starts_with(PREFIX) { PREFIX.len() + shown } else { shown };
        let (start, end) = (text.get(..head), text.get(text.len() - shown..));
        format!("{}…{}", start.unwrap_or_default(), end.unwrap_or_default())
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

/// HMAC-SHA-256(pepper, key): what a key is looked up by. It is worth nothing without the pepper, but it is not shown either.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// Hexadecimal, for the store and the log.
impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        let bytes = bytes.try_into().map_err(|_| serde::de::Error::custom("a digest has 32 bytes"))?;
        Ok(Self(bytes))
    }
}

/// Makes digests with one pepper. The keyed state is made once, so a digest of a usual key costs two compressions.
#[derive(Clone)]
pub struct Digester {
    keyed: Hmac<Sha256>,
    /// During a rotation of the pepper: the one before it.
    previous: Option<Box<Hmac<Sha256>>>,
}

impl Digester {
    /// `pepper` is 32 random bytes, and comes from a file or the environment, never from the store.
    pub fn new(pepper: &[u8; 32]) -> Self {
        Self { keyed: keyed(pepper), previous: None }
    }

    /// During a rotation: keys whose digests were made with this pepper are still found.
    #[must_use]
    pub fn with_previous(self, pepper: &[u8; 32]) -> Self {
        Self { previous: Some(Box::new(keyed(pepper))), ..self }
    }

    pub fn digest(&self, key: PresentedKey<'_>) -> Digest {
        digest_with(&self.keyed, key)
    }

    /// For a key whose first digest is unknown everywhere. Absent outside of a rotation.
    pub fn previous_digest(&self, key: PresentedKey<'_>) -> Option<Digest> {
        self.previous.as_ref().map(|keyed| digest_with(keyed, key))
    }
}

fn keyed(pepper: &[u8; 32]) -> Hmac<Sha256> {
    // HMAC pads a short key with zeros to the block of its hash (RFC 2104); giving it the whole block cannot fail.
    let mut block = zeroize::Zeroizing::new([0; 64]);
    let (head, _) = block.split_at_mut(pepper.len());
    head.copy_from_slice(pepper);
    <Hmac<Sha256> as KeyInit>::new((&*block).into())
}

fn digest_with(keyed: &Hmac<Sha256>, key: PresentedKey<'_>) -> Digest {
    let mut mac = keyed.clone();
    mac.update(key.0);
    Digest(mac.finalize().into_bytes().into())
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester(…)")
    }
}

/// Compares two secrets in a time that does not depend on where they differ.
pub fn secrets_equal(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_read_back_and_any_changed_character_is_malformed() {
        let key = KeyText::generate().unwrap();
        let text = key.expose();
        assert_eq!(text.len(), GENERATED_LEN);
        assert!(PresentedKey::parse(text.as_bytes()).is_ok());
        for at in PREFIX.len()..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            assert!(PresentedKey::parse(&bytes).is_err(), "character {at} changed");
        }
        assert!(PresentedKey::parse(&text.as_bytes()[..49]).is_err());
        assert!(PresentedKey::parse(format!("{text}x").as_bytes()).is_err());
    }

    #[test]
    fn an_opaque_key_is_any_visible_ascii_up_to_256_bytes() {
        assert!(PresentedKey::parse(b"sk-anything.At/all").is_ok());
        assert!(PresentedKey::parse(&[b'x'; MAX_LEN]).is_ok());
        for bad in [&b""[..], b"with space", b"tab\t", "ключ".as_bytes(), &[b'x'; MAX_LEN + 1]] {
            assert_eq!(PresentedKey::parse(bad).err(), Some(MalformedKey));
        }
    }

    #[test]
    fn the_digest_depends_on_the_pepper_and_on_every_byte() {
        let key = PresentedKey::parse(b"some-key").unwrap();
        let one = Digester::new(&[1; 32]);
        assert_eq!(one.digest(key), one.digest(key));
        assert_ne!(one.digest(key), Digester::new(&[2; 32]).digest(key));
        assert_ne!(one.digest(key), one.digest(PresentedKey::parse(b"some-kez").unwrap()));
    }

    #[test]
    fn the_digest_is_hmac_sha_256() {
        // The expected value was made with Python's hmac module.
        let digest = Digester::new(&[0x0b; 32]).digest(PresentedKey::parse(b"HiThere").unwrap());
        assert_eq!(HEXLOWER.encode(&digest.0), "57c086adbbcc8ba54b933c8334537390add52961556311ebe07216452ca6c953");
    }

    #[test]
    fn a_mask_never_shows_more_than_a_few_characters() {
        let key = KeyText::generate().unwrap();
        assert_eq!(key.masked().chars().count(), 4 + 4 + 1 + 4);
        assert_eq!(KeyText::import("short".into()).unwrap().masked(), "…");
        assert_eq!(format!("{key:?} {:?}", key.presented()), "KeyText(…) PresentedKey(…)");
    }
}
