//! What the control plane asks of the store about users: members, passwords, second factors, sessions. The rules are those of
//! [`super::accounts`]: one atomic step each, with its audit entry.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::principal::{AccountId, SessionId, UserId};
use crate::store::StoreError;
use crate::store::accounts::{Answer, NewUser};
use crate::store::audit::Actor;
use crate::store::records::{PasswordHash, Sealed, SessionRecord, TokenHash, UserRecord};
use crate::time::WallTime;

/// Members an account may have.
pub const MEMBERS_MOST: usize = 100;

/// A signed-in user who changes something of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oneself {
    pub user_id: UserId,
    /// The session they do it in.
    pub session_id: SessionId,
    /// A grant for [`GrantFor::Account`](super::records::GrantFor::Account), used up by the change.
    pub grant: Option<TokenHash>,
}

/// What an operator gives a root user who lost theirs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reset {
    pub user_id: UserId,
    pub password: PasswordHash,
    pub totp: Sealed,
    pub reason: String,
}

#[async_trait]
pub trait UserStore: Send + Sync {
    /// Refused: `NotFound` (account), `EmailTaken`, `IdTaken`, `MemberLimitReached`.
    async fn create_member(
        &self,
        account_id: AccountId,
        new: NewUser,
        actor: Actor,
        now: WallTime,
    ) -> Answer<UserRecord>;
    /// Their sessions end. Refused: `NotFound` (also of another account, also the root user).
    async fn delete_member(&self, account_id: AccountId, user_id: UserId, actor: Actor, now: WallTime) -> Answer<()>;

    /// All other sessions of the user end. A root user needs a grant. Refused: `NotFound`, `StepUpRequired`, `GrantInvalid`.
    async fn set_password(&self, by: Oneself, password: PasswordHash, actor: Actor, now: WallTime) -> Answer<()>;
    /// Keeps a new TOTP secret until `expires_at`, beside the one in force. Refused: as `set_password`.
    async fn begin_totp(
        &self,
        by: Oneself,
        secret: Sealed,
        expires_at: WallTime,
        actor: Actor,
        now: WallTime,
    ) -> Answer<()>;
    /// Puts the pending secret in force. `step` is that of the code shown for it, and is used up. All other sessions of the user
    /// and all grants of the account end. Refused: `NotFound` where `secret` is not what is pending for this session.
    async fn confirm_totp(&self, by: Oneself, secret: Sealed, step: u64, actor: Actor, now: WallTime) -> Answer<()>;
    /// In place of those there were. Refused: as `set_password`.
    async fn set_recovery_codes(&self, by: Oneself, codes: Vec<TokenHash>, actor: Actor, now: WallTime) -> Answer<()>;
    /// Ends all sessions of the account, recovery codes and grants. Refused: `NotFound` (user, or not the root of the account).
    async fn reset_root(&self, account_id: AccountId, reset: Reset, actor: Actor, now: WallTime) -> Answer<()>;

    /// Those that have not expired, oldest first.
    async fn sessions_of(&self, user_id: UserId, now: WallTime) -> Result<Vec<SessionRecord>, StoreError>;
    async fn close_other_sessions(&self, by: Oneself, actor: Actor, now: WallTime) -> Answer<()>;
}
