//! Finds secrets, and parts of them, in whatever form they may have been written.

use std::collections::{BTreeSet, HashMap};

use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// So many bytes in a row of a secret, or of its encoding, are a leak.
const WINDOW: usize = 16;

#[derive(Default)]
pub struct Needles {
    names: HashMap<[u8; WINDOW], &'static str>,
    /// Whether any window begins with these two bytes: rules out most places at once.
    begin: HashMap<[u8; 2], ()>,
}

impl Needles {
    /// A secret of at least 15 bytes: as it is, in base64 at each alignment, in base32, and in hexadecimal.
    pub fn add(&mut self, name: &'static str, secret: &[u8]) {
        assert!(secret.len() >= WINDOW, "{name} is too short to be told from chance");
        self.add_form(name, secret);
        self.add_form(name, HEXLOWER.encode(secret).as_bytes());
        self.add_form(name, HEXUPPER.encode(secret).as_bytes());
        for skipped in 0..3 {
            // Whole groups of three bytes are written alike wherever they stand.
            let groups = &secret[skipped..][..(secret.len() - skipped) / 3 * 3];
            self.add_form(name, BASE64_NOPAD.encode(groups).as_bytes());
            self.add_form(name, BASE64URL_NOPAD.encode(groups).as_bytes());
        }
        for skipped in 0..5 {
            let groups = &secret[skipped..][..(secret.len() - skipped) / 5 * 5];
            self.add_form(name, BASE32_NOPAD.encode(groups).as_bytes());
        }
    }

    fn add_form(&mut self, name: &'static str, form: &[u8]) {
        for window in form.windows(WINDOW) {
            self.names.insert(window.try_into().unwrap(), name);
            self.begin.insert([window[0], window[1]], ());
        }
    }

    /// Up to 200 bytes before the first find and behind it.
    pub fn context(&self, haystack: &[u8]) -> String {
        let first = haystack.windows(WINDOW).position(|window| self.names.contains_key(window));
        let shown = first.map(|at| &haystack[at.saturating_sub(200)..haystack.len().min(at + 200)]);
        String::from_utf8_lossy(shown.unwrap_or_default()).into_owned()
    }

    pub fn found_in(&self, haystack: &[u8]) -> BTreeSet<&'static str> {
        let begins = |window: &&[u8]| self.begin.contains_key(&[window[0], window[1]]);
        let windows = haystack.windows(WINDOW).filter(begins);
        windows.filter_map(|window| self.names.get(window).copied()).collect()
    }
}

#[test]
fn parts_and_encodings_are_found_and_masks_are_not() {
    let mut needles = Needles::default();
    let secret = "dvk_0123456789abcdefghijklmnopqrstuvwxyz";
    needles.add("it", secret.as_bytes());
    let inside = format!("xx{secret}y");
    for leak in [
        secret[5..21].to_owned(),
        HEXLOWER.encode(&secret.as_bytes()[7..]),
        BASE64_NOPAD.encode(inside.as_bytes()),
        BASE64URL_NOPAD.encode(&secret.as_bytes()[3..]),
        BASE32_NOPAD.encode(inside.as_bytes()),
    ] {
        assert_eq!(needles.found_in(format!("before {leak} after").as_bytes()), ["it"].into(), "{leak}");
    }
    assert_eq!(needles.found_in(b"dvk_0123...wxyz and dvk_0123456789a"), BTreeSet::new());
}
