//! The keys of a run: as the product makes them, the same in every run.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use data_encoding::HEXUPPER;
use sha2::{Digest, Sha256};

/// How many keys every proxy looks a call's key up among.
pub const KEYS: usize = 10_000;

/// Keys that are known, keys that nobody knows, and keys that are known and will be deleted.
pub struct Keys {
    pub good: Vec<String>,
    pub wrong: Vec<String>,
    pub spare: Vec<String>,
}

impl Keys {
    pub fn new(spare: usize) -> Self {
        let mut generator = Generator(0x9e37_79b9_7f4a_7c15);
        let mut many = |count| (0..count).map(|_| generator.key()).collect();
        Self { good: many(KEYS), wrong: many(KEYS), spare: many(spare) }
    }

    /// Keys that nobody knows either, none of them among those of a run.
    pub fn unknown(count: usize) -> Vec<String> {
        let mut generator = Generator(0xd1b5_4a32_d192_ed03);
        (0..count).map(|_| generator.key()).collect()
    }

    /// The account that other proxies know a key's caller by. Each key has its own, so that they keep as many counters as the gateway,
    /// which counts by key.
    pub fn account(number: usize) -> String {
        format!("acc_{number:016}")
    }

    /// Writes a line for each key: its SHA-256 in hexadecimal, a space, its account.
    pub fn write_digests(&self, to: &Path) -> io::Result<()> {
        let mut text = String::new();
        for (number, key) in self.good.iter().enumerate() {
            let digest = HEXUPPER.encode(&Sha256::digest(key.as_bytes()));
            writeln!(text, "{digest} {}", Self::account(number)).map_err(io::Error::other)?;
        }
        fs::write(to, text)
    }
}

/// Xorshift: these keys guard nothing.
struct Generator(u64);

impl Generator {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

    /// The product's own form: 40 characters, and their CRC-32 in six more.
    fn key(&mut self) -> String {
        let random: String = (0..40).map(|_| self.character()).collect();
        let mut rest = crc32fast::hash(random.as_bytes());
        let mut checksum = [b'0'; 6];
        for digit in checksum.iter_mut().rev() {
            *digit = Self::BASE62[(rest % 62) as usize];
            rest /= 62;
        }
        format!("dvk_{random}{}", checksum.map(char::from).iter().collect::<String>())
    }

    fn character(&mut self) -> char {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Self::BASE62[(self.0 >> 32) as usize % 62].into()
    }
}
