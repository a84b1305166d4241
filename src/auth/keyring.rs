//! What this gateway knows of keys, accounts and clusters. Every change and every fill goes through the rules of
//! revocation (design, section 5): a fill never overwrites a tombstone and never brings back what the log has passed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::auth::entry::{Entry, Known};
use crate::key::Digest;
use crate::mutant::Mutant;
use crate::principal::{
    Account, AccountId, AccountStatus, Cluster, ClusterId, Credential, Epoch, RandomAlready, Revision,
};
use crate::store::{Change, ClustersRead, Found, Loaded, LogEntry};
use crate::time::BootTime;

/// How long an unknown key is remembered as unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
const UNKNOWN_MOST: usize = 65_536;
/// Tombstones held beyond this number leave once nothing can bring their keys back.
const TOMBSTONES_MOST: usize = 65_536;
/// Keys held; above it some are forgotten and loaded again at their next call.
const KEYS_MOST: usize = 16_000_000;

pub struct Keyring {
    keys: DashMap<Digest, Entry, RandomAlready>,
    accounts: DashMap<AccountId, Account, RandomAlready>,
    hosts: DashMap<Box<str>, Arc<Cluster>, foldhash::fast::RandomState>,
    clusters: DashMap<ClusterId, Arc<Cluster>, RandomAlready>,
    unknown: Cache<Digest, BootTime>,
    /// Raised to a revision before its entries are changed; a fill below it is refused.
    floor: AtomicU64,
    /// The last revision applied without a gap.
    applied: AtomicU64,
    epoch: Mutex<Option<Epoch>>,
    buried: Mutex<VecDeque<(Revision, Digest)>>,
    loads: AtomicUsize,
}

/// What a lookup found. It says nothing about the lease under which it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Key {
        credential: Credential,
        status: AccountStatus,
    },
    /// Deleted, for good.
    Deleted,
    Unknown,
    /// Nothing is known: ask the store.
    Missing,
}

/// A load is under way; while it lives no tombstone leaves the keyring.
pub struct LoadGuard<'a>(&'a AtomicUsize);

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    Done,
    /// The log has moved past what was loaded: load again.
    Stale,
}

impl Default for Keyring {
    fn default() -> Self {
        Self {
            keys: DashMap::default(),
            accounts: DashMap::default(),
            hosts: DashMap::default(),
            clusters: DashMap::default(),
            unknown: Cache::new(UNKNOWN_MOST),
            floor: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            epoch: Mutex::new(None),
            buried: Mutex::default(),
            loads: AtomicUsize::new(0),
        }
    }
}

impl Keyring {
    /// Looks a key and its account up. An unknown key is remembered until a moment on the caller's clock, so `now`.
    pub fn look_up(&self, digest: &Digest, now: impl Fn() -> BootTime) -> Seen {
        let known = self.keys.get(digest).map(|entry| entry.known());
        match known {
            Some(Known::Allow { credential, flagged: false }) => match self.accounts.get(&credential.account_id) {
                Some(account) => Seen::Key { credential, status: account.status },
                None => Seen::Missing,
            },
            Some(Known::Allow { flagged: true, .. }) => Seen::Missing,
            Some(Known::Tombstone) => Seen::Deleted,
            None if self.unknown.get(digest).is_some_and(|until| now() < until) => Seen::Unknown,
            None => Seen::Missing,
        }
    }

    /// The cluster served under an authority.
    pub fn cluster_of(&self, host: &str) -> Option<Arc<Cluster>> {
        self.hosts.get(host).map(|cluster| Arc::clone(&cluster))
    }

    /// A cluster by its id, or by one of its hosts.
    pub fn cluster(&self, name: &str) -> Option<Arc<Cluster>> {
        let by_id = name.parse().ok().and_then(|id: ClusterId| self.clusters.get(&id).map(|found| Arc::clone(&found)));
        by_id.or_else(|| self.cluster_of(name))
    }

    pub fn applied(&self) -> Revision {
        Revision(self.applied.load(Ordering::SeqCst))
    }

    pub fn epoch(&self) -> Option<Epoch> {
        *self.epoch.lock()
    }

    /// The number of keys and tombstones held.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn begin_load(&self) -> LoadGuard<'_> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        LoadGuard(&self.loads)
    }

    /// Takes in what a load found, unless the log has passed it or the key is deleted.
    pub fn fill(&self, _under_way: &LoadGuard<'_>, digest: Digest, loaded: &Loaded, now: BootTime) -> Fill {
        match &loaded.found {
            Found::Key { credential, account } => {
                if self.fill_account(account, loaded) == Fill::Stale {
                    return Fill::Stale;
                }
                self.fill_key(digest, *credential, loaded)
            }
            Found::Unknown | Found::Deleted => self.fill_unknown(digest, loaded, now),
        }
    }

    fn fill_key(&self, digest: Digest, credential: Credential, loaded: &Loaded) -> Fill {
        self.make_room();
        match self.keys.entry(digest) {
            _ if self.is_behind(loaded) => Fill::Stale,
            Slot::Occupied(mut held) => {
                if !held.get().is_tombstone() || Mutant::FillOverTombstone.is_on() {
                    held.insert(Entry::allow(credential));
                }
                Fill::Done
            }
            Slot::Vacant(free) => {
                free.insert(Entry::allow(credential));
                Fill::Done
            }
        }
    }

    fn fill_account(&self, account: &Account, loaded: &Loaded) -> Fill {
        let slot = self.accounts.entry(account.account_id);
        if self.is_behind(loaded) {
            return Fill::Stale;
        }
        slot.insert(account.clone());
        Fill::Done
    }

    fn fill_unknown(&self, digest: Digest, loaded: &Loaded, now: BootTime) -> Fill {
        // The lock of the (vacant) entry orders this against the log entry that would make the key known.
        match self.keys.entry(digest) {
            _ if self.is_behind(loaded) => Fill::Stale,
            Slot::Occupied(mut held) => {
                if matches!(loaded.found, Found::Deleted) {
                    held.insert(Entry::TOMBSTONE);
                } else if !held.get().is_tombstone() {
                    held.remove();
                }
                Fill::Done
            }
            Slot::Vacant(_held) => {
                self.unknown.insert(digest, now.plus(UNKNOWN_FOR));
                Fill::Done
            }
        }
    }

    /// To be asked under the lock of the entry that would be filled.
    fn is_behind(&self, loaded: &Loaded) -> bool {
        let is_old = loaded.revision.0 < self.floor.load(Ordering::SeqCst) && !Mutant::FillOverTombstone.is_on();
        is_old || *self.epoch.lock() != Some(loaded.epoch)
    }

    /// Applies log entries in order. Entries at or below `applied` change nothing that is newer.
    pub fn apply(&self, entries: &[LogEntry]) {
        let Some(last) = entries.last() else {
            return;
        };
        self.floor.fetch_max(last.revision.0, Ordering::SeqCst);
        for entry in entries {
            self.change(&entry.change, entry.revision);
        }
        self.applied.fetch_max(last.revision.0, Ordering::SeqCst);
        self.forget_old_tombstones();
    }

    /// For [`Mutant::GapIgnored`]: as if everything up to this revision had been applied.
    pub fn skip_to(&self, revision: Revision) {
        self.applied.fetch_max(revision.0, Ordering::SeqCst);
    }

    fn change(&self, change: &Change, at: Revision) {
        match change {
            Change::KeyDeleted { digest, .. } => self.bury(*digest, at),
            Change::KeyPut { digest, credential } => self.put_key(*digest, *credential),
            Change::AccountPut(account) => {
                if let Some(mut held) = self.accounts.get_mut(&account.account_id)
                    && held.version <= account.version
                {
                    *held = account.clone();
                }
            }
            Change::ClusterPut(cluster) => self.put_cluster(cluster),
            Change::ClusterDeleted { cluster_id } => self.remove_cluster(*cluster_id),
        }
    }

    fn bury(&self, digest: Digest, at: Revision) {
        self.keys.insert(digest, Entry::TOMBSTONE);
        self.unknown.remove(&digest);
        self.buried.lock().push_back((at, digest));
    }

    fn put_key(&self, digest: Digest, credential: Credential) {
        match self.keys.entry(digest) {
            Slot::Occupied(mut held) => {
                if held.get().version().is_some_and(|held| held <= credential.version) {
                    held.insert(Entry::allow(credential));
                }
            }
            // Not held: it will be loaded at its first call. What must go is the memory of its having been unknown.
            Slot::Vacant(_held) => {
                self.unknown.remove(&digest);
            }
        }
    }

    fn put_cluster(&self, cluster: &Cluster) {
        let is_newer = |held: &Arc<Cluster>| held.version > cluster.version;
        if !self.clusters.get(&cluster.cluster_id).is_some_and(|held| is_newer(&held)) {
            self.replace_cluster(cluster);
        }
    }

    fn replace_cluster(&self, cluster: &Cluster) {
        let cluster = Arc::new(cluster.clone());
        let held = self.clusters.insert(cluster.cluster_id, Arc::clone(&cluster));
        for host in &cluster.hosts {
            self.hosts.insert(host.as_str().into(), Arc::clone(&cluster));
        }
        let gone = held.iter().flat_map(|held| &held.hosts).filter(|host| !cluster.hosts.contains(host));
        gone.for_each(|host| self.release_host(host, cluster.cluster_id));
    }

    fn remove_cluster(&self, cluster_id: ClusterId) {
        if let Some((_, held)) = self.clusters.remove(&cluster_id) {
            held.hosts.iter().for_each(|host| self.release_host(host, cluster_id));
        }
    }

    /// A host may have gone to another cluster in the meantime.
    fn release_host(&self, host: &str, owner: ClusterId) {
        self.hosts.remove_if(host, |_, cluster| cluster.cluster_id == owner);
    }

    /// A push says that a key was deleted. It can deny for a moment; only the log and the store decide.
    pub fn flag(&self, digest: &Digest) {
        if let Some(mut entry) = self.keys.get_mut(digest) {
            entry.flag();
        }
    }

    /// Another epoch, or the log does not reach back: everything but the tombstones is forgotten, and nothing is filled
    /// in until [`Keyring::begin`].
    pub fn forget(&self) {
        *self.epoch.lock() = None;
        self.applied.store(0, Ordering::SeqCst);
        self.keys.retain(|_, entry| entry.is_tombstone());
        self.accounts.clear();
        self.unknown.clear();
    }

    /// Starts from all clusters as read in this epoch at `revision` or later.
    pub fn begin(&self, read: &ClustersRead, revision: Revision) {
        // A new epoch counts from where its store stands, which may be lower than before.
        self.floor.store(revision.0, Ordering::SeqCst);
        *self.epoch.lock() = Some(read.epoch);
        let known: HashSet<ClusterId> = read.clusters.iter().map(|cluster| cluster.cluster_id).collect();
        let gone: Vec<ClusterId> =
            self.clusters.iter().map(|held| *held.key()).filter(|id| !known.contains(id)).collect();
        gone.into_iter().for_each(|id| self.remove_cluster(id));
        read.clusters.iter().for_each(|cluster| self.replace_cluster(cluster));
        self.applied.store(revision.0, Ordering::SeqCst);
    }

    /// A tombstone may leave once the log has passed it and no load is under way that began before it: every later
    /// load either sees the deletion or is refused by the floor.
    fn forget_old_tombstones(&self) {
        let mut buried = self.buried.lock();
        while buried.len() > TOMBSTONES_MOST && self.loads.load(Ordering::SeqCst) == 0 {
            let Some((_, digest)) = buried.pop_front() else {
                return;
            };
            self.keys.remove_if(&digest, |_, entry| entry.is_tombstone());
        }
    }

    fn make_room(&self) {
        if self.keys.len() < KEYS_MOST {
            return;
        }
        let some: Vec<Digest> = self.keys.iter().take(1024).map(|entry| *entry.key()).collect();
        for digest in some {
            self.keys.remove_if(&digest, |_, entry| !entry.is_tombstone());
        }
    }
}

impl Drop for LoadGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
