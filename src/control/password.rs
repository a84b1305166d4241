//! Passwords: Argon2id, off the async threads, with the same work for an unknown user as for a known one.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;

use super::error::{Kind, Problem};
use super::request::broken_rule;
use crate::store::records::PasswordHash;

/// What one verification costs. The default is OWASP's: 19 MiB, two passes, one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 }
    }
}

/// A password as it came in. Wiped on drop, never printed.
#[derive(Debug)]
pub struct Password(SecretString);

impl Password {
    const MOST: usize = 1024;
    const LEAST: usize = 8;

    /// Whether it may become somebody's password. For signing in any length is tried.
    pub fn check_new(&self) -> Result<(), Problem> {
        if self.0.expose_secret().chars().count() >= Self::LEAST {
            return Ok(());
        }
        Err(Problem::invalid("A password has at least 8 characters."))
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = SecretString::from(String::deserialize(from)?);
        if text.expose_secret().len() > Self::MOST {
            return Err(broken_rule("the password is too long"));
        }
        Ok(Self(text))
    }
}

/// How a verification is treated: who failed often recently takes turns with others who did, and never delays the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Usual,
    Suspect,
}

/// Hashes and verifies, a bounded number at once.
pub struct Passwords {
    argon: Argon2<'static>,
    /// What an unknown user's password is compared with. Nothing matches it.
    decoy: PasswordHash,
    usual: Arc<Semaphore>,
    suspect: Arc<Semaphore>,
}

/// The cost is outside of what Argon2 allows, or no random bytes were to be had.
#[derive(Debug, thiserror::Error)]
#[error("passwords cannot be hashed: {0}")]
pub struct CannotHash(String);

impl Passwords {
    pub fn new(cost: PasswordCost) -> Result<Self, CannotHash> {
        let params =
            Params::new(cost.memory_kib, cost.passes, cost.lanes, None).map_err(|e| CannotHash(e.to_string()))?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut nobody = [0; 32];
        getrandom::fill(&mut nobody).map_err(|e| CannotHash(e.to_string()))?;
        let decoy = hash(&argon, &nobody).map_err(|e| CannotHash(e.to_string()))?;
        let at_once = std::thread::available_parallelism().map_or(1, |threads| threads.get().div_ceil(2));
        let (usual, suspect) = (Arc::new(Semaphore::new(at_once)), Arc::new(Semaphore::new(1)));
        Ok(Self { argon, decoy, usual, suspect })
    }

    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Problem> {
        let argon = self.argon.clone();
        self.on_a_thread(Lane::Usual, move || hash(&argon, password.0.expose_secret().as_bytes()))
            .await?
            .map_err(|error| Problem::internal(&error))
    }

    /// Whether `password` is that of `known`. Without anybody known the same work ends in no.
    pub async fn verify(&self, password: Password, known: Option<PasswordHash>, lane: Lane) -> Result<bool, Problem> {
        let (argon, is_known) = (self.argon.clone(), known.is_some());
        let stored = known.unwrap_or_else(|| self.decoy.clone());
        let matches = self.on_a_thread(lane, move || verify(&argon, &password, &stored)).await?;
        Ok(matches && is_known)
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let semaphore = if lane == Lane::Usual { &self.usual } else { &self.suspect };
        let permit = Arc::clone(semaphore).acquire_owned().await.map_err(|_| Kind::Overloaded)?;
        let job = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        job.await.map_err(|error| Problem::internal(&error))
    }
}

fn hash(argon: &Argon2<'_>, password: &[u8]) -> argon2::password_hash::Result<PasswordHash> {
    argon.hash_password(password).map(|phc: argon2::PasswordHash| PasswordHash(phc.to_string()))
}

fn verify(argon: &Argon2<'_>, password: &Password, stored: &PasswordHash) -> bool {
    let phc = argon2::PasswordHash::new(&stored.0);
    phc.is_ok_and(|phc| argon.verify_password(password.0.expose_secret().as_bytes(), &phc).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_good() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let stored = passwords.hash("correct horse".to_owned().into()).await.unwrap();
        assert!(stored.0.starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        for (text, known, good) in [
            ("correct horse", Some(&stored), true),
            ("correct hors", Some(&stored), false),
            ("correct horse", None, false),
        ] {
            for lane in [Lane::Usual, Lane::Suspect] {
                assert_eq!(passwords.verify(text.to_owned().into(), known.cloned(), lane).await, Ok(good));
            }
        }
    }

    #[test]
    fn a_password_is_never_printed_and_a_short_one_is_refused() {
        let password = Password::from("hunter2".to_owned());
        assert!(!format!("{password:?}").contains("hunter2"));
        assert!(password.check_new().is_err());
        let long = serde_json::to_string(&"x".repeat(1025)).unwrap();
        assert!(!serde_json::from_str::<Password>(&long).unwrap_err().to_string().contains("xx"));
    }
}
