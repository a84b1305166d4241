//! The feed against a store that follows a script: each renewal gets the next answer, the last one again and again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus::Registry;

use super::*;
use crate::key::Digest;
use crate::principal::{Account, AccountId, AccountStatus, ClusterId, Credential, Epoch, ID_BYTES, KeyId};
use crate::store::{Change, ClustersRead, Found, Loaded};
use crate::time::{BootTime, WallTime};

const STORE: StoreId = StoreId([1; ID_BYTES]);
const EPOCH: Epoch = Epoch([2; ID_BYTES]);
const LEASE: Duration = Duration::from_secs(2);

struct Script {
    answers: Vec<Renewal>,
    /// How long each answer takes.
    slow: Duration,
    /// Each renewal as it was asked for, and when the lease held then was to end.
    asked: Mutex<Vec<(Renew, Duration)>>,
    lease: Arc<Lease>,
    cluster_reads: AtomicUsize,
    pushes: broadcast::Sender<Push>,
}

fn answer(revision: u64, log: LogTail) -> Renewal {
    Renewal { store_id: STORE, epoch: EPOCH, lease: LEASE, revision: Revision(revision), log }
}

fn entries(revisions: impl IntoIterator<Item = u64>) -> LogTail {
    let entry = |revision| LogEntry {
        revision: Revision(revision),
        change: Change::ClusterDeleted { cluster_id: ClusterId([7; ID_BYTES]) },
    };
    LogTail::Entries(revisions.into_iter().map(entry).collect())
}

#[async_trait]
impl FeedStore for Script {
    async fn renew(&self, renew: Renew) -> Result<Renewal, StoreError> {
        tokio::time::sleep(self.slow).await;
        let mut asked = self.asked.lock();
        asked.push((renew, self.lease.left(BootTime(0))));
        Ok(self.answers[(asked.len() - 1).min(self.answers.len() - 1)].clone())
    }

    async fn load(&self, _: Digest) -> Result<Loaded, StoreError> {
        Err(StoreError::Away("the feed loads nothing".to_owned()))
    }

    async fn clusters(&self) -> Result<ClustersRead, StoreError> {
        self.cluster_reads.fetch_add(1, Ordering::SeqCst);
        Ok(ClustersRead { epoch: EPOCH, revision: self.answers[0].revision, clusters: Vec::new() })
    }

    async fn release(&self, _: Incarnation) -> Result<(), StoreError> {
        Ok(())
    }

    fn pushes(&self) -> broadcast::Receiver<Push> {
        self.pushes.subscribe()
    }
}

struct Stage {
    script: Arc<Script>,
    followed: Followed,
    _feed: Feed,
}

impl Stage {
    fn start(answers: Vec<Renewal>, slow: Duration) -> Self {
        let (pushes, _) = broadcast::channel(8);
        let cluster_reads = AtomicUsize::new(0);
        let lease = Arc::new(Lease::default());
        let script =
            Script { answers, slow, asked: Mutex::default(), lease: Arc::clone(&lease), cluster_reads, pushes };
        let script = Arc::new(script);
        let followed = Followed {
            incarnation: Incarnation([3; ID_BYTES]),
            store_id: STORE,
            keyring: Arc::new(Keyring::default()),
            lease,
            metrics: Arc::new(Metrics::new(Registry::new(), WallTime(0)).unwrap()),
        };
        let feed = Feed::start(Arc::clone(&script) as Arc<dyn FeedStore>, followed.clone()).unwrap();
        Self { script, followed, _feed: feed }
    }

    fn has_lease(&self) -> bool {
        self.followed.lease.snapshot().is_good_at(clock::boot())
    }

    fn asked(&self) -> usize {
        self.script.asked.lock().len()
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::yield_now();
        }
    }
}

/// The first renewal of a gateway that knows nothing yet.
fn begin(revision: u64) -> Renewal {
    answer(revision, LogTail::Trimmed)
}

#[test]
fn there_is_no_lease_before_the_feed_is_told_to_begin() {
    let stage = Stage::start(vec![begin(3)], Duration::ZERO);
    let (now, told) = tokio::sync::oneshot::channel();
    let lease = Arc::new(Lease::default());
    let followed = Followed { lease: Arc::clone(&lease), keyring: Arc::default(), ..stage.followed.clone() };
    let feed = Feed::start_after(told, Arc::clone(&stage.script) as Arc<dyn FeedStore>, followed).unwrap();
    stage.wait("another feed has its lease", Stage::has_lease);
    assert!(!lease.snapshot().is_good_at(clock::boot()) && feed.attempts().ended == 0);
    now.send(()).unwrap();
    stage.wait("so has this one", |_| lease.snapshot().is_good_at(clock::boot()));
    let (kept, never) = tokio::sync::oneshot::channel();
    drop(Feed::start_after(never, Arc::clone(&stage.script) as Arc<dyn FeedStore>, stage.followed.clone()).unwrap());
    drop(kept);
}

#[test]
fn there_is_no_lease_before_the_log_is_applied_up_to_what_the_reply_says() {
    let (half, rest) = (answer(9, entries(4..=6)), answer(9, entries(7..=9)));
    let stage = Stage::start(vec![begin(3), half, rest, answer(9, entries([]))], Duration::from_millis(20));
    stage.wait("four renewals", |stage| stage.asked() >= 4);
    let asked = stage.script.asked.lock();
    let applied: Vec<u64> = asked.iter().take(4).map(|(renew, _)| renew.applied.0).collect();
    assert_eq!(applied, [0, 3, 6, 9]);
    let ends: Vec<Duration> = asked.iter().map(|(_, end)| *end).collect();
    assert!(ends[0].is_zero() && ends[1] > ends[0], "the clusters were read at what the reply said: {ends:?}");
    assert_eq!(ends[2], ends[1], "half of the log extends nothing");
    assert!(ends[3] > ends[2], "all of it does: {ends:?}");
}

#[test]
fn a_gap_in_the_log_makes_the_gateway_start_again() {
    for gap in [entries([6]), entries([4, 6]), entries([5, 4])] {
        let stage = Stage::start(vec![begin(3), answer(3, entries([])), answer(6, gap), begin(6)], Duration::ZERO);
        stage.wait("the clusters are read once more", |stage| stage.script.cluster_reads.load(Ordering::SeqCst) >= 2);
        // The last answer is given for ever, and makes it begin again each time.
        assert_eq!(stage.followed.metrics.revocation.restarts.of(&FeedRestart::Gap).get(), 1);
    }
}

#[test]
fn the_lease_counts_from_before_the_renewal_was_sent() {
    let slow = Duration::from_millis(400);
    let stage = Stage::start(vec![begin(3), answer(3, entries([]))], slow);
    stage.wait("a lease", Stage::has_lease);
    let left = stage.followed.lease.left(clock::boot());
    assert!(left <= LEASE - slow + Duration::from_millis(5), "{left:?}");
}

#[test]
fn no_lease_is_taken_from_another_store() {
    let other = Renewal { store_id: StoreId([9; ID_BYTES]), ..begin(3) };
    let stage = Stage::start(vec![other], Duration::ZERO);
    stage.wait("some renewals", |stage| stage.asked() >= 3);
    assert!(!stage.has_lease());
}

#[test]
fn a_push_flags_the_key_at_once_and_is_forgotten_when_the_log_does_not_confirm_it() {
    let digest = Digest([5; 32]);
    let stage = Stage::start(vec![begin(3), answer(3, entries([]))], Duration::ZERO);
    stage.wait("a lease", Stage::has_lease);
    let keyring = &stage.followed.keyring;
    let (account_id, key_id) = (AccountId([1; ID_BYTES]), KeyId([2; ID_BYTES]));
    let account = Account { account_id, status: AccountStatus::Active, version: 1 };
    let credential = Credential { key_id, account_id, disabled: false, expires_at: None, expired: false, version: 1 };
    let loaded = Loaded { epoch: EPOCH, revision: Revision(3), found: Found::Key { credential, account } };
    keyring.fill(&keyring.begin_load(), digest, &loaded, clock::boot());
    let seen = || keyring.look_up(&digest, clock::boot);
    assert!(matches!(seen(), crate::auth::keyring::Seen::Key { .. }));
    let before = stage.asked();
    stage.script.pushes.send(Push { epoch: EPOCH, revision: Revision(4), deleted: Some(digest) }).unwrap();
    stage.wait("the key is flagged", |_| seen() == crate::auth::keyring::Seen::Missing);
    stage.wait("a renewal", |stage| stage.asked() > before);
    // Forged: the store says otherwise, and the next load puts the key right.
    keyring.fill(&keyring.begin_load(), digest, &loaded, clock::boot());
    assert!(matches!(seen(), crate::auth::keyring::Seen::Key { .. }));
}
