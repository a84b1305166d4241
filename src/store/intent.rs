//! Changes as values: what a journal writes down before the store is asked, and what the store gives back for them.

use std::collections::HashSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::accounts::{
    AccountPatch, AccountStore, Answer, Changed, ClusterPatch, DeleteBy, KeyLimits, KeyPatch, NewAccount, NewCluster,
    NewKey, NewUser,
};
use super::audit::{Actor, AuditVerdict, ChainHash};
use super::records::{AccountRecord, ClusterRecord, KeyRecord, PasswordHash, Sealed, TokenHash, UserRecord};
use super::usage::{Abandoned, Adjustment, NewAdjustment};
use super::users::{Oneself, Reset, UserStore};
use crate::principal::{AccountId, ClusterId, Incarnation, JournalId, KeyId, UserId};
use crate::time::WallTime;

/// Every change that a control plane acknowledges, with all that is needed to make it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    CreateAccount(NewAccount),
    PatchAccount { account_id: AccountId, patch: AccountPatch },
    CreateCluster(NewCluster),
    PatchCluster { cluster_id: ClusterId, patch: ClusterPatch },
    DeleteCluster { cluster_id: ClusterId },
    CreateKey { new: NewKey, limits: KeyLimits },
    ImportKeys { account_id: AccountId, new: Vec<NewKey> },
    PatchKey { account_id: AccountId, key_id: KeyId, patch: KeyPatch },
    DeleteKey { account_id: AccountId, key_id: KeyId, by: DeleteBy },
    CreateMember { account_id: AccountId, new: NewUser },
    DeleteMember { account_id: AccountId, user_id: UserId },
    SetPassword { by: Oneself, password: PasswordHash },
    ConfirmTotp { by: Oneself, secret: Sealed, step: u64 },
    SetRecoveryCodes { by: Oneself, codes: Vec<TokenHash> },
    ResetRoot { account_id: AccountId, reset: Reset },
    AdjustUsage(NewAdjustment),
    AbandonGateway { incarnation: Incarnation, reason: String },
}

/// One change that somebody asked for, under the number by which the store knows whether it has made it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// From 1, without a gap, within one journal.
    pub no: u64,
    pub action: Action,
    pub actor: Actor,
    /// When it was asked for; also when it is made again.
    pub now: WallTime,
}

/// Whether the rules are asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Enforced,
    /// The change held once, as the `commit`-th: limits, days and grants were checked then.
    Waived {
        commit: u64,
    },
}

/// The last entry of the audit log: its number and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    pub seq: u64,
    pub hash: ChainHash,
}

/// What the store keeps of a change that it has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The place among all changes from journals: the order in which they are made again.
    pub commit: u64,
    /// The audit log right after it.
    pub audit: AuditHead,
}

/// What a change gives back.
#[derive(Clone, Debug)]
pub enum Outcome {
    Account(Changed<AccountRecord>),
    Cluster(Changed<ClusterRecord>),
    Key(Changed<KeyRecord>),
    Keys(Changed<Vec<KeyRecord>>),
    User(UserRecord),
    Adjustment(Adjustment),
    Abandoned(Abandoned),
    Nothing(()),
}

/// A change that the store has made.
#[derive(Clone, Debug)]
pub struct Submitted {
    pub noted: Noted,
    /// Absent where it was made before, and was not made again.
    pub outcome: Option<Outcome>,
}

/// What a journal asks of the store it stands before.
#[async_trait]
pub trait Submit: AccountStore + UserStore {
    /// `Frozen` while only changes of before are made again, and no new ones.
    fn check_open(&self) -> Result<(), StoreError>;
    /// Makes the change together with a note of its number, in one step; or finds the note.
    async fn submit(&self, journal: JournalId, intent: Intent, rules: Rules) -> Answer<Submitted>;
    /// The journal whose changes this store takes; absent until one is attached.
    async fn journal(&self) -> Result<Option<JournalId>, StoreError>;
    /// From now on this journal's.
    async fn attach_journal(&self, journal: JournalId) -> Result<(), StoreError>;
    /// The greatest number of this journal's changes that the store has made; 0 where there is none.
    async fn last_intent(&self, journal: JournalId) -> Result<u64, StoreError>;
    /// The numbers of all of this journal's changes that the store has made and not forgotten.
    async fn noted(&self, journal: JournalId) -> Result<HashSet<u64>, StoreError>;
    /// The last entry of the audit log; absent where there is none.
    async fn audit_head(&self) -> Result<Option<AuditHead>, StoreError>;
    /// As `verify_audit`; `known` is an entry that must still be there.
    async fn verify_audit_from(&self, known: Option<AuditHead>) -> Result<AuditVerdict, StoreError>;
    /// The journal no longer holds changes with smaller numbers, so nobody will ask for them again.
    async fn forget_intents(&self, journal: JournalId, before: u64) -> Result<(), StoreError>;
}

/// The store answered a change with the outcome of another one.
fn mixed_up() -> StoreError {
    StoreError::Corrupt("a change was answered with the outcome of another kind of change".to_owned())
}

macro_rules! taken_from_outcome {
    ($($variant:ident($of:ty);)+) => { $(
        impl TryFrom<Outcome> for $of {
            type Error = StoreError;

            fn try_from(outcome: Outcome) -> Result<Self, StoreError> {
                match outcome {
                    Outcome::$variant(changed) => Ok(changed),
                    _ => Err(mixed_up()),
                }
            }
        }
    )+ };
}

taken_from_outcome! {
    Account(Changed<AccountRecord>);
    Cluster(Changed<ClusterRecord>);
    Key(Changed<KeyRecord>);
    Keys(Changed<Vec<KeyRecord>>);
    User(UserRecord);
    Adjustment(Adjustment);
    Abandoned(Abandoned);
    Nothing(());
}

impl Action {
    /// A deletion is final and safe to make again; anything else that nobody was answered is judged by the rules.
    pub fn is_deletion(&self) -> bool {
        matches!(self, Self::DeleteKey { .. } | Self::DeleteCluster { .. } | Self::DeleteMember { .. })
    }

    /// What it is called in the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CreateAccount(_) => "account.create",
            Self::PatchAccount { .. } => "account.patch",
            Self::CreateCluster(_) => "cluster.create",
            Self::PatchCluster { .. } => "cluster.patch",
            Self::DeleteCluster { .. } => "cluster.delete",
            Self::CreateKey { .. } => "key.create",
            Self::ImportKeys { .. } => "key.import",
            Self::PatchKey { .. } => "key.patch",
            Self::DeleteKey { .. } => "key.delete",
            Self::CreateMember { .. } => "member.create",
            Self::DeleteMember { .. } => "member.delete",
            Self::SetPassword { .. } => "password.change",
            Self::ConfirmTotp { .. } => "totp.replace",
            Self::SetRecoveryCodes { .. } => "recovery_codes.replace",
            Self::ResetRoot { .. } => "account.reset",
            Self::AdjustUsage(_) => "usage.adjust",
            Self::AbandonGateway { .. } => "usage.abandon",
        }
    }
}
