//! Secrets that come from files: the pepper, the sealing key, the operator's token. Errors name the file, never its content.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use zeroize::Zeroizing;

use super::token::{self, Token};
use crate::store::records::TokenHash;

/// 32 random bytes: a pepper or a sealing key. Wiped on drop, never printed.
pub struct SecretBytes(Zeroizing<[u8; 32]>);

#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("the secret file {path} cannot be read: {cause}", path = .path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("the secret file {path} cannot be written: {cause}", path = .path.display())]
    Unwritable { path: PathBuf, cause: std::io::Error },
    #[error("the secret file {path} must hold 32 random bytes in base64, as `openssl rand -base64 32` makes them", path = .path.display())]
    NotThirtyTwoBytes { path: PathBuf },
    #[error("the token file {path} must hold one token of 16 to 512 visible ASCII characters", path = .path.display())]
    NotAToken { path: PathBuf },
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(getrandom::Error),
}

/// No secret file is longer than this.
const MOST: u64 = 4096;

impl SecretBytes {
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// Reads 32 bytes in base64, with or without padding, in the usual or the URL alphabet; space around it is trimmed.
    pub fn read(path: &Path) -> Result<Self, SecretFileError> {
        let text = read_trimmed(path)?;
        let readings = [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD];
        let decoded = readings.iter().find_map(|base64| base64.decode(text.as_bytes()).ok()).map(Zeroizing::new);
        let bytes = decoded.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        bytes
            .map(|bytes| Self(Zeroizing::new(bytes)))
            .ok_or_else(|| SecretFileError::NotThirtyTwoBytes { path: path.to_owned() })
    }

    /// Writes a new file that only its owner may read. An existing file is an error: a secret is never overwritten.
    pub fn write_new(&self, path: &Path) -> Result<(), SecretFileError> {
        let text = Zeroizing::new(BASE64.encode(self.0.as_slice()));
        write_new(path, &text)
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

/// Reads a token file, such as the operator's. Only the hash is kept.
pub fn read_token(path: &Path) -> Result<TokenHash, SecretFileError> {
    let text = read_trimmed(path)?;
    let fits = (16..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(token::hash(text.as_bytes())) } else { Err(SecretFileError::NotAToken { path: path.to_owned() }) }
}

/// Writes a token into a new file that only its owner may read.
pub fn write_new_token(path: &Path, token: &Token) -> Result<(), SecretFileError> {
    write_new(path, token.expose())
}

fn read_trimmed(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    use std::io::Read;
    let unreadable = |cause| SecretFileError::Unreadable { path: path.to_owned(), cause };
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MOST).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn write_new(path: &Path, text: &str) -> Result<(), SecretFileError> {
    let unwritable = |cause| SecretFileError::Unwritable { path: path.to_owned(), cause };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unwritable)?;
    writeln!(file, "{text}").and_then(|()| file.sync_all()).map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::token::OPERATOR;

    #[test]
    fn a_secret_is_read_back_with_space_around_it_in_either_alphabet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pepper");
        let secret = SecretBytes::random().unwrap();
        secret.write_new(&path).unwrap();
        assert_eq!(SecretBytes::read(&path).unwrap().expose(), secret.expose());
        std::fs::write(&path, format!("  {}\r\n", BASE64URL_NOPAD.encode(secret.expose()))).unwrap();
        assert_eq!(SecretBytes::read(&path).unwrap().expose(), secret.expose());
    }

    #[test]
    fn a_bad_file_is_named_and_its_content_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealing.key");
        let missing = SecretBytes::read(&path).unwrap_err();
        assert!(missing.to_string().contains("sealing.key"), "{missing}");
        std::fs::write(&path, "c2hvcnQ=").unwrap();
        let short = SecretBytes::read(&path).unwrap_err();
        assert!(short.to_string().contains("sealing.key") && !format!("{short} {short:?}").contains("c2hv"), "{short}");
    }

    #[test]
    fn a_secret_is_never_overwritten_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.token");
        let token = Token::random(OPERATOR).unwrap();
        write_new_token(&path, &token).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_token(&path).unwrap(), token.hash());
        assert!(matches!(write_new_token(&path, &token), Err(SecretFileError::Unwritable { .. })));
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(read_token(&path), Err(SecretFileError::NotAToken { .. })));
    }
}
