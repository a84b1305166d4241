//! The audit log: append-only, each entry chained to the one before it by a hash. Pure: no store, no clock.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::principal::AccountId;
use crate::time::WallTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    Operator,
    Root,
    Member,
    System,
}

/// Who asked for a change, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub kind: ActorKind,
    /// A user id, or a name for who has none. Never a token.
    pub id: String,
    pub from: Option<IpAddr>,
}

impl Actor {
    /// The program itself.
    pub fn system() -> Self {
        Self { kind: ActorKind::System, id: "system".to_owned(), from: None }
    }
}

/// What happened, before it has its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub at: WallTime,
    pub actor: Actor,
    /// `key.delete` and the like.
    pub action: String,
    /// The id of the thing changed.
    pub subject: String,
    /// Whose root user may read it.
    pub account_id: Option<AccountId>,
    /// What changed, for a person. Never a secret.
    pub detail: Option<String>,
}

/// SHA-256 over an entry and, through the one before it, over all earlier ones. Hexadecimal in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHash(pub [u8; 32]);

/// What the first entry is chained to.
pub const GENESIS: ChainHash = ChainHash([0; 32]);

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// From 1, without a gap.
    pub seq: u64,
    pub at: WallTime,
    pub actor: Actor,
    pub action: String,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub previous: ChainHash,
    pub hash: ChainHash,
}

/// A page of the log, newest first.
#[derive(Clone, Copy, Debug)]
pub struct AuditQuery {
    /// Only entries of this account.
    pub account_id: Option<AccountId>,
    /// Only entries with a smaller `seq`.
    pub before: Option<u64>,
    pub limit: usize,
}

/// What reading the whole chain gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditVerdict {
    Whole {
        entries: u64,
    },
    /// `seq` is the first place at which the chain does not hold.
    Broken {
        seq: u64,
    },
}

impl AuditEntry {
    /// Gives an event its place behind the entry (`seq`, hash) that is the last one so far; (0, [`GENESIS`]) where there is none.
    pub fn chain(event: AuditEvent, last: (u64, ChainHash)) -> Self {
        let AuditEvent { at, actor, action, subject, account_id, detail } = event;
        let (seq, previous) = (last.0 + 1, last.1);
        let mut entry = Self { seq, at, actor, action, subject, account_id, detail, previous, hash: GENESIS };
        entry.hash = entry.computed();
        entry
    }

    /// The hash this entry must have. Every field is preceded by its length, so no two entries share their bytes.
    fn computed(&self) -> ChainHash {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(&self.previous.0);
        field(&self.seq.to_be_bytes());
        field(&self.at.0.to_be_bytes());
        field(match self.actor.kind {
            ActorKind::Operator => b"operator",
            ActorKind::Root => b"root",
            ActorKind::Member => b"member",
            ActorKind::System => b"system",
        });
        field(self.actor.id.as_bytes());
        field(self.actor.from.map(|from| from.to_string()).unwrap_or_default().as_bytes());
        field(self.action.as_bytes());
        field(self.subject.as_bytes());
        field(self.account_id.as_ref().map_or(&[][..], |id| &id.0));
        field(&[u8::from(self.detail.is_some())]);
        field(self.detail.as_deref().unwrap_or_default().as_bytes());
        ChainHash(hash.finalize().into())
    }
}

/// Follows the chain as its entries are read, from the first one on.
#[derive(Debug)]
pub struct Verifier {
    last: (u64, ChainHash),
}

impl Default for Verifier {
    fn default() -> Self {
        Self { last: (0, GENESIS) }
    }
}

impl Verifier {
    /// Takes the next entry, or gives the `seq` that should have stood there.
    pub fn take(&mut self, entry: &AuditEntry) -> Result<(), u64> {
        let seq = self.last.0 + 1;
        let holds = entry.seq == seq && entry.previous == self.last.1 && entry.hash == entry.computed();
        self.last = (seq, entry.hash);
        if holds { Ok(()) } else { Err(seq) }
    }

    /// The `seq` of the entry that comes next.
    pub fn next(&self) -> u64 {
        self.last.0 + 1
    }

    /// `head` is what the store believes the last entry to be; without it a cut end would not be seen.
    pub fn finish(self, head: (u64, ChainHash)) -> AuditVerdict {
        if self.last == head {
            AuditVerdict::Whole { entries: head.0 }
        } else {
            AuditVerdict::Broken { seq: self.last.0.min(head.0) + 1 }
        }
    }
}

impl Serialize for ChainHash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for number in 0..length {
            let last = entries.last().map_or((0, GENESIS), |entry| (entry.seq, entry.hash));
            let event = AuditEvent {
                at: WallTime(number),
                actor: Actor::system(),
                action: "key.create".to_owned(),
                subject: format!("key {number}"),
                account_id: Some(AccountId([1; 10])),
                detail: None,
            };
            entries.push(AuditEntry::chain(event, last));
        }
        entries
    }

    fn verify(entries: &[AuditEntry], head: &AuditEntry) -> AuditVerdict {
        let mut verifier = Verifier::default();
        match entries.iter().try_for_each(|entry| verifier.take(entry)) {
            Ok(()) => verifier.finish((head.seq, head.hash)),
            Err(seq) => AuditVerdict::Broken { seq },
        }
    }

    #[test]
    fn a_whole_chain_holds_and_survives_json() {
        let entries = chain(20);
        let read: Vec<AuditEntry> = serde_json::from_slice(&serde_json::to_vec(&entries).unwrap()).unwrap();
        assert_eq!(verify(&read, &entries[19]), AuditVerdict::Whole { entries: 20 });
    }

    #[test]
    fn every_changed_field_breaks_the_chain_where_it_was_changed() {
        let changes: [fn(&mut AuditEntry); 10] = [
            |entry| entry.seq += 1,
            |entry| entry.at.0 += 1,
            |entry| entry.actor.kind = ActorKind::Root,
            |entry| entry.actor.id.push('x'),
            |entry| entry.actor.from = Some([127, 0, 0, 1].into()),
            |entry| entry.action.push('x'),
            |entry| std::mem::swap(&mut entry.action, &mut entry.subject),
            |entry| entry.account_id = None,
            |entry| entry.detail = Some(String::new()),
            |entry| entry.hash.0[31] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut entries = chain(20);
            let head = entries[19].clone();
            change(&mut entries[6]);
            assert_eq!(verify(&entries, &head), AuditVerdict::Broken { seq: 7 }, "change {number}");
        }
    }

    #[test]
    fn removed_reordered_and_cut_entries_are_found() {
        let whole = chain(20);
        let head = &whole[19];
        let mut removed = whole.clone();
        removed.remove(4);
        assert_eq!(verify(&removed, head), AuditVerdict::Broken { seq: 5 });
        let mut reordered = whole.clone();
        reordered.swap(10, 11);
        assert_eq!(verify(&reordered, head), AuditVerdict::Broken { seq: 11 });
        assert_eq!(verify(&whole[..18], head), AuditVerdict::Broken { seq: 19 });
        assert_eq!(verify(&[], head), AuditVerdict::Broken { seq: 1 });
    }
}
