//! What the decision over a call allocates: nothing, once its key is in the keyring and its usage line is there. And what an export
//! of usage allocates: its pieces.
//!
//! A test binary of its own, since it counts by being the allocator, each thread for itself.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "a test; an allocator is unsafe by its trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::Duration;

use http::Request;
use tollgate::auth::keyring::{Fill, Keyring};
use tollgate::auth::lease::Lease;
use tollgate::auth::{Verdict, glance};
use tollgate::clock;
use tollgate::control::export::{Exposition, Pieces};
use tollgate::gateway::{extract, form, route};
use tollgate::key::{Digester, KeyText};
use tollgate::limits::{AccountLimits, Limits};
use tollgate::meter::record::{Counters, LineKey, Operation, Outcome, Units};
use tollgate::meter::{Meter, MeterOptions, Tally};
use tollgate::principal::{
    Account, AccountId, AccountStatus, Cluster, ClusterId, Credential, Epoch, Incarnation, KeyId, Revision, StoreId,
};
use tollgate::store::{ClustersRead, Found, Loaded, UsageTotal};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOST: &str = "vectors.example";
const OWNER: AccountId = AccountId([1; 10]);
const EPOCH: Epoch = Epoch([2; 10]);

#[test]
fn a_decision_over_a_known_key_allocates_nothing() {
    let (keyring, lease, digester) = (Keyring::default(), Lease::default(), Digester::new(&[7; 32]));
    let key = KeyText::generate().unwrap();
    fill(&keyring, &digester, &key);
    lease.extend(clock::boot(), Duration::from_secs(60));
    let folder = tempfile::tempdir().unwrap();
    let meter = Meter::open(MeterOptions {
        slab_dir: Some(folder.path().to_owned()),
        spool_dir: folder.path().to_owned(),
        store_id: StoreId([5; 10]),
        incarnation: Incarnation([6; 10]),
        now: clock::wall(),
    });
    let meter = meter.unwrap();
    meter.attach_thread();
    let limits = Limits::new(AccountLimits::default());
    let (parts, ()) = Request::post("http://vectors.example/v1/collections/c/query?x=1")
        .header("host", HOST)
        .header("dashvector-auth-token", key.expose())
        .header("content-type", "application/json")
        .body(())
        .unwrap()
        .into_parts();
    let head = form::HeadLimits::from(&tollgate::config::LimitsConfig::default());
    let decide = || {
        form::check_form(&parts, head).unwrap();
        let authority = route::authority(&parts).unwrap();
        let digest = digester.digest(extract::presented(&parts).unwrap());
        let seen = glance(&keyring, &lease, &digest, clock::boot, |keyring| keyring.cluster_of(authority.host()));
        let now = clock::boot();
        let wall = clock::wall_at(now);
        let Verdict::Admit(verified) = seen.verdict(now, wall, Ipv4Addr::LOCALHOST.into()) else {
            panic!("a good key was not admitted");
        };
        let _permit = limits.admit(verified.account_id(), now).unwrap();
        let operation = route::http_operation(&parts.method, parts.uri.path());
        let (account_id, key_id) = (verified.account_id(), verified.key_id());
        let line = LineKey { account_id, key_id, cluster_id: verified.cluster().cluster_id, operation };
        let charge = meter.open_charge(line, wall, false).unwrap();
        let units = Units { read: Some(1), write: None };
        charge.commit(Outcome::Ok, Tally { request_bytes: 60, response_bytes: 600, units, units_missing: false });
        assert_eq!(operation, Operation::Query);
    };
    // The first call makes the usage line.
    decide();
    let before = ALLOCATIONS.with(Cell::get);
    (0..1000).for_each(|_| decide());
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 1000 calls");
}

#[test]
fn an_export_allocates_its_pieces_and_nothing_for_each_series() {
    let total = |n: u32| {
        let mut id = [0; 10];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let (account_id, cluster_id, operation) = (AccountId(id), ClusterId([3; 10]), Operation::Query);
        UsageTotal { account_id, cluster_id, operation, counters: Counters::default() }
    };
    for exposition in [Exposition::Text, Exposition::OpenMetrics, Exposition::Protobuf] {
        let totals: Vec<_> = (0..10_000).map(total).collect();
        let before = ALLOCATIONS.with(Cell::get);
        let pieces = Pieces::new(totals, exposition).count();
        let allocations = ALLOCATIONS.with(Cell::get) - before;
        println!("{exposition:?}: 120 000 series in {pieces} pieces, {allocations} allocations");
        // A few for the head of each family and for the labels at hand.
        assert!(allocations <= pieces + 7 * 4 + 8, "{exposition:?}: {allocations} for {pieces} pieces");
    }
}

fn fill(keyring: &Keyring, digester: &Digester, key: &KeyText) {
    let cluster = Cluster {
        cluster_id: ClusterId([3; 10]),
        account_id: OWNER,
        hosts: vec![HOST.into()],
        upstreams: vec!["http://127.0.0.1:1".into()],
        allow_ips: vec!["127.0.0.0/8".parse().unwrap()],
        version: 1,
    };
    let revision = Revision(1);
    keyring.begin(&ClustersRead { epoch: EPOCH, revision, clusters: vec![cluster] }, revision);
    let credential = Credential {
        key_id: KeyId([4; 10]),
        account_id: OWNER,
        disabled: false,
        expires_at: None,
        expired: false,
        version: 1,
    };
    let account = Account { account_id: OWNER, status: AccountStatus::Active, version: 1 };
    let loaded = Loaded { epoch: EPOCH, revision, found: Found::Key { credential, account } };
    let digest = digester.digest(key.presented());
    assert_eq!(keyring.fill(&keyring.begin_load(), digest, &loaded, clock::boot()), Fill::Done);
}
