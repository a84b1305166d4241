//! Files that hold secrets: read, trimmed, checked, and never shown.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::{Zeroize, Zeroizing};

/// 32 random bytes: a pepper, or a sealing key. Wiped on drop, never printed.
pub type Secret32 = SecretBox<[u8; 32]>;

/// Why a secret cannot be used, and what to do about it. Says nothing of the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretFault {
    #[error("there is no file {}; make one with: (umask 077; head -c 32 /dev/urandom | base64 > {})", .0.display(), .0.display())]
    Missing(PathBuf),
    #[error("the file {} cannot be read: {}", .0.display(), .1)]
    Unreadable(PathBuf, io::Error),
    #[error("every user of this machine can reach the file {}; run: chmod 600 {}", .0.display(), .0.display())]
    OpenToOthers(PathBuf),
    #[error("the file {} does not hold 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64", .0.display())]
    NotKey32(PathBuf),
    #[error("the file {} does not hold a token of 16 to 256 visible ASCII characters", .0.display())]
    NotToken(PathBuf),
}

/// Reads 32 bytes in base64, white space around them trimmed.
pub fn key32(path: &Path) -> Result<Secret32, SecretFault> {
    let text = read(path)?;
    let decoded = BASE64.decode(text.expose_secret().trim().as_bytes()).map(Zeroizing::new);
    let decoded = decoded.map_err(|_| SecretFault::NotKey32(path.into()))?;
    let mut bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| SecretFault::NotKey32(path.into()))?;
    let secret = SecretBox::init_with_mut(|held: &mut [u8; 32]| held.copy_from_slice(&bytes));
    bytes.zeroize();
    Ok(secret)
}

/// Reads a token, white space around it trimmed.
pub fn token(path: &Path) -> Result<SecretString, SecretFault> {
    let text = read(path)?;
    let token = text.expose_secret().trim();
    let fits = (16..=256).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(SecretString::from(token)) } else { Err(SecretFault::NotToken(path.into())) }
}

/// Checks that the file is there and that not every user of the machine can reach it. Its content is not read.
pub fn private_file(path: &Path) -> Result<(), SecretFault> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SecretFault::Missing(path.into()),
        _ => SecretFault::Unreadable(path.into(), error),
    })?;
    if metadata.mode() & 0o007 == 0 { Ok(()) } else { Err(SecretFault::OpenToOthers(path.into())) }
}

fn read(path: &Path) -> Result<SecretString, SecretFault> {
    private_file(path)?;
    let text = fs::read_to_string(path).map_err(|error| SecretFault::Unreadable(path.into(), error))?;
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_key_is_32_bytes_in_base64_with_white_space_around_them() {
        let text = format!("  {}\n", BASE64.encode(&[9; 32]));
        assert_eq!(key32(file(&text, 0o640).path()).unwrap().expose_secret(), &[9; 32]);
        for bad in ["", "short", &BASE64.encode(&[9; 31]), &BASE64.encode(&[9; 33])] {
            assert!(matches!(key32(file(bad, 0o600).path()), Err(SecretFault::NotKey32(_))), "{bad}");
        }
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_refused() {
        let text = BASE64.encode(&[9; 32]);
        assert!(matches!(key32(file(&text, 0o644).path()), Err(SecretFault::OpenToOthers(_))));
        assert!(matches!(token(file(&text, 0o604).path()), Err(SecretFault::OpenToOthers(_))));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_content() {
        let secret = "hunter2-hunter2";
        let path = file(secret, 0o600);
        let said = format!("{} {:?}", token(path.path()).unwrap_err(), key32(path.path()).unwrap_err());
        assert!(!said.contains(secret), "{said}");
    }
}
