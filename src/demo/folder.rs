//! The data folder of the demo: secrets made at its first start, and `demo.json`, the one place where plaintext is allowed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use zeroize::Zeroizing;

use super::seed::Facts;
use crate::app::AppError;

pub struct Folder {
    path: PathBuf,
    pub operator_token: String,
}

impl Folder {
    /// Makes the folder private, and the secrets that are not there yet.
    pub fn prepare(path: &Path) -> Result<Self, AppError> {
        let failed = |source| AppError::Folder { path: path.to_owned(), source };
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        for name in ["pepper", "sealing.key"] {
            let secret = Zeroizing::new(BASE64.encode(&*random()?));
            write_once(&path.join(name), &secret).map_err(failed)?;
        }
        let token = Zeroizing::new(format!("tgo_{}", BASE64URL_NOPAD.encode(&*random()?)));
        write_once(&path.join("operator.token"), &token).map_err(failed)?;
        let operator_token = fs::read_to_string(path.join("operator.token")).map_err(failed)?.trim().to_owned();
        Ok(Self { path: path.to_owned(), operator_token })
    }

    /// What an earlier start with this folder wrote down.
    pub fn facts(&self) -> io::Result<Option<Facts>> {
        match fs::read(self.path.join("demo.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces `demo.json` as a whole, mode 0600.
    pub fn keep(&self, facts: &Facts) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        serde_json::to_writer_pretty(&mut file, facts)?;
        file.as_file().sync_all()?;
        file.persist(self.path.join("demo.json"))?;
        Ok(())
    }
}

/// Writes a file that only its owner may read, unless it is there.
fn write_once(path: &Path, text: &str) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            writeln!(file, "{text}")?;
            file.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn random() -> Result<Zeroizing<[u8; 32]>, AppError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(bytes)
}
