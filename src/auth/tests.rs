//! The rules of revocation, one gateway at a time.

use super::*;
use crate::auth::keyring::Fill;
use crate::principal::{Account, Epoch, Revision};
use crate::store::{Change, ClustersRead, Found, Loaded, LogEntry};
use std::net::Ipv4Addr;
use std::time::Duration;

const EPOCH: Epoch = Epoch([1; 10]);
const OWNER: AccountId = AccountId([2; 10]);
const HOST: &str = "vectors.example";

fn credential() -> Credential {
    Credential {
        key_id: KeyId([3; 10]),
        account_id: OWNER,
        disabled: false,
        expires_at: None,
        expired: false,
        version: 1,
    }
}

fn account(status: AccountStatus, version: u64) -> Account {
    Account { account_id: OWNER, status, version }
}

fn cluster(version: u64, allow: &[&str]) -> Cluster {
    Cluster {
        cluster_id: crate::principal::ClusterId([4; 10]),
        account_id: OWNER,
        hosts: vec![HOST.into()],
        upstreams: vec!["http://127.0.0.1:1".into()],
        allow_ips: allow.iter().map(|net| net.parse().unwrap()).collect(),
        version,
    }
}

fn loaded(revision: u64) -> Loaded {
    let found = Found::Key { credential: credential(), account: account(AccountStatus::Active, 1) };
    Loaded { epoch: EPOCH, revision: Revision(revision), found }
}

fn unknown(revision: u64) -> Loaded {
    Loaded { epoch: EPOCH, revision: Revision(revision), found: Found::Unknown }
}

fn deleted(revision: u64) -> LogEntry {
    let change = Change::KeyDeleted { key_id: credential().key_id, digest: digest() };
    LogEntry { revision: Revision(revision), change }
}

fn digest() -> Digest {
    Digest([9; 32])
}

struct Bench {
    keyring: Keyring,
    lease: Lease,
}

impl Bench {
    /// A gateway at revision 10 with a good lease, one cluster, and no key yet.
    fn new() -> Self {
        let (keyring, lease) = (Keyring::default(), Lease::default());
        keyring.begin(
            &ClustersRead { epoch: EPOCH, revision: Revision(10), clusters: vec![cluster(1, &[])] },
            Revision(10),
        );
        lease.extend(BootTime(0), Duration::from_secs(5));
        Self { keyring, lease }
    }

    fn fill(&self, loaded: &Loaded) -> Fill {
        self.keyring.fill(&self.keyring.begin_load(), digest(), loaded, BootTime(1))
    }

    fn apply(&self, revision: u64, change: Change) {
        self.keyring.apply(&[LogEntry { revision: Revision(revision), change }]);
    }

    fn verdict(&self) -> String {
        self.verdict_at(BootTime(2), WallTime(0))
    }

    fn verdict_at(&self, now: BootTime, wall: WallTime) -> String {
        let seen = glance(&self.keyring, &self.lease, &digest(), || now, |keyring| keyring.cluster_of(HOST));
        match seen.verdict(now, wall, Ipv4Addr::LOCALHOST.into()) {
            Verdict::Admit(verified) => format!("admit {}", verified.account_id()),
            Verdict::Deny(denial) => denial.row().label.to_owned(),
            Verdict::Unknown => Denial::NotValid.row().label.to_owned(),
            Verdict::Unsure => "unsure".to_owned(),
        }
    }
}

fn admitted() -> String {
    format!("admit {OWNER}")
}

#[test]
fn a_key_is_unsure_until_loaded_and_then_admitted() {
    let bench = Bench::new();
    assert_eq!(bench.verdict(), "unsure");
    assert_eq!(bench.fill(&loaded(10)), Fill::Done);
    assert_eq!(bench.verdict(), admitted());
}

#[test]
fn without_a_lease_nothing_is_admitted_and_nothing_called_unknown() {
    let bench = Bench::new();
    bench.fill(&loaded(10));
    let late = BootTime(6_000_000_000);
    assert_eq!(bench.verdict_at(late, WallTime(0)), "unsure");
    let other = Bench::new();
    other.fill(&unknown(10));
    assert_eq!(other.verdict(), "not_valid");
    assert_eq!(other.verdict_at(late, WallTime(0)), "unsure");
}

#[test]
fn a_deletion_denies_at_once_and_no_fill_brings_the_key_back() {
    let bench = Bench::new();
    bench.fill(&loaded(10));
    bench.keyring.apply(&[deleted(11)]);
    assert_eq!(bench.verdict(), "not_valid");
    assert_eq!(bench.fill(&loaded(10)), Fill::Stale, "a load from before the deletion");
    assert_eq!(bench.fill(&loaded(12)), Fill::Done, "even one that claims to be newer");
    assert_eq!(bench.verdict(), "not_valid");
    bench.apply(13, Change::KeyPut { digest: digest(), credential: Credential { version: 9, ..credential() } });
    assert_eq!(bench.verdict(), "not_valid");
}

#[test]
fn a_fill_checked_against_the_floor_cannot_admit_a_suspended_account() {
    let bench = Bench::new();
    bench.apply(11, Change::AccountPut(account(AccountStatus::Suspended, 2)));
    assert_eq!(bench.fill(&loaded(10)), Fill::Stale);
    assert_eq!(bench.verdict(), "unsure");
}

#[test]
fn a_push_denies_for_a_moment_and_a_load_decides() {
    let bench = Bench::new();
    bench.fill(&loaded(10));
    bench.keyring.flag(&digest());
    assert_eq!(bench.verdict(), "unsure");
    bench.fill(&loaded(10));
    assert_eq!(bench.verdict(), admitted(), "the push was forged");
}

#[test]
fn an_import_takes_the_memory_of_an_unknown_key_away() {
    let bench = Bench::new();
    bench.fill(&unknown(10));
    assert_eq!(bench.verdict(), "not_valid");
    bench.apply(11, Change::KeyPut { digest: digest(), credential: credential() });
    assert_eq!(bench.verdict(), "unsure");
    assert_eq!(bench.fill(&unknown(10)), Fill::Stale, "a load from before the import");
}

#[test]
fn an_unknown_key_is_forgotten_after_a_while() {
    let bench = Bench::new();
    bench.lease.extend(BootTime(0), Duration::from_secs(60));
    bench.fill(&unknown(10));
    assert_eq!(bench.verdict_at(BootTime(9_000_000_000), WallTime(0)), "not_valid");
    assert_eq!(bench.verdict_at(BootTime(11_000_000_000), WallTime(0)), "unsure");
}

#[test]
fn disabled_expired_suspended_and_foreign_calls_are_told_apart() {
    let bench = Bench::new();
    bench.fill(&loaded(10));
    let put =
        |version, credential| Change::KeyPut { digest: digest(), credential: Credential { version, ..credential } };
    bench.apply(11, put(2, Credential { disabled: true, ..credential() }));
    assert_eq!(bench.verdict(), "not_usable");
    bench.apply(12, put(3, Credential { expires_at: Some(WallTime(50)), ..credential() }));
    assert_eq!(bench.verdict_at(BootTime(2), WallTime(49)), admitted());
    assert_eq!(bench.verdict_at(BootTime(2), WallTime(50)), "not_usable");
    bench.apply(13, put(4, credential()));
    bench.apply(14, Change::AccountPut(account(AccountStatus::Suspended, 2)));
    assert_eq!(bench.verdict(), "account_suspended");
    bench.apply(15, Change::AccountPut(account(AccountStatus::Active, 3)));
    bench.apply(16, Change::ClusterPut(Cluster { account_id: AccountId([7; 10]), ..cluster(2, &[]) }));
    assert_eq!(bench.verdict(), "not_the_owner");
    bench.apply(17, Change::ClusterPut(cluster(3, &["10.0.0.0/8"])));
    assert_eq!(bench.verdict(), "address_not_allowed");
    bench.apply(18, Change::ClusterPut(cluster(4, &["127.0.0.0/8"])));
    assert_eq!(bench.verdict(), admitted());
    bench.apply(19, Change::ClusterDeleted { cluster_id: cluster(1, &[]).cluster_id });
    assert_eq!(bench.verdict(), "unknown_cluster");
}

#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let bench = Bench::new();
    bench.fill(&loaded(10));
    bench.apply(
        11,
        Change::KeyPut { digest: digest(), credential: Credential { version: 5, disabled: true, ..credential() } },
    );
    bench.apply(11, Change::KeyPut { digest: digest(), credential: Credential { version: 4, ..credential() } });
    assert_eq!(bench.verdict(), "not_usable");
}

#[test]
fn another_epoch_forgets_all_but_tombstones() {
    let bench = Bench::new();
    bench.fill(&loaded(10));
    let other = Epoch([8; 10]);
    bench.keyring.forget();
    assert_eq!(bench.verdict(), "unsure");
    assert_eq!(bench.fill(&loaded(10)), Fill::Stale, "a load of the old epoch");
    bench
        .keyring
        .begin(&ClustersRead { epoch: other, revision: Revision(3), clusters: vec![cluster(1, &[])] }, Revision(3));
    assert_eq!(bench.fill(&Loaded { epoch: other, ..loaded(3) }), Fill::Done);
    assert_eq!(bench.verdict(), admitted());
    bench.keyring.apply(&[deleted(4)]);
    bench.keyring.forget();
    assert_eq!(bench.verdict(), "not_valid", "a tombstone outlives the epoch");
}
