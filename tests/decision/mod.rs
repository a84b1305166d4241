//! The decision over a call as the path of a call makes it, ready to be made again and again: for what is measured of it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "part of tests and benchmarks, each of which uses some of it"
)]

use std::convert::identity;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Version};
use tollgate::auth::keyring::{Fill, Keyring};
use tollgate::auth::lease::Lease;
use tollgate::auth::{Verdict, glance};
use tollgate::clock;
use tollgate::gateway::fields::Fields;
use tollgate::gateway::form::HeadLimits;
use tollgate::gateway::message::RequestHead;
use tollgate::gateway::{extract, form, route};
use tollgate::key::{Digest, Digester, KeyText};
use tollgate::limits::{AccountLimits, Limits};
use tollgate::meter::record::{LineKey, Operation, Outcome, Units};
use tollgate::meter::{Meter, MeterOptions, Tally};
use tollgate::principal::{
    Account, AccountId, AccountStatus, Cluster, ClusterId, Credential, Epoch, Incarnation, KeyId, Revision, StoreId,
};
use tollgate::store::{ClustersRead, Found, Loaded};

const HOST: &str = "vectors.example";
const OWNER: AccountId = AccountId([1; 10]);
const EPOCH: Epoch = Epoch([2; 10]);
const REVISION: Revision = Revision(1);

/// Everything that one decision needs, on the thread that made it.
pub struct Decision {
    pub keyring: Keyring,
    pub digester: Digester,
    lease: Lease,
    limits: Limits,
    meter: Arc<Meter>,
    head: RequestHead,
    bounds: HeadLimits,
    _folder: tempfile::TempDir,
}

impl Decision {
    /// With this many keys in the keyring, of which the call presents one. The usage line is made by the first decision.
    pub fn among(keys: u64) -> Self {
        let (keyring, lease, digester) = (Keyring::default(), Lease::default(), Digester::new(&[7; 32]));
        let key = KeyText::generate().unwrap();
        begin(&keyring);
        hold(&keyring, digester.digest(key.presented()), KeyId([4; 10]));
        (1..keys).for_each(|number| hold(&keyring, spread(number), KeyId([9; 10])));
        lease.extend(clock::boot(), Duration::from_secs(24 * 3600));
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
        let mut fields = Fields::default();
        fields.add(b"Host", HOST.as_bytes());
        fields.add(b"dashvector-auth-token", key.expose().as_bytes());
        fields.add(b"Content-Type", b"application/json");
        let uri = "http://vectors.example/v1/collections/c/query?x=1".parse().unwrap();
        let head = RequestHead { method: Method::POST, uri, version: Version::HTTP_11, fields };
        let bounds = HeadLimits::from(&tollgate::config::LimitsConfig::default());
        let limits = Limits::new(AccountLimits::default());
        Self { keyring, lease, digester, limits, meter, head, bounds, _folder: folder }
    }

    /// Form, route, key, digest, lookup, lease, permit, charge, commit.
    ///
    /// # Panics
    /// The call is not admitted.
    pub fn make(&self) {
        self.decide(identity);
    }

    /// The same, but what is looked up is this digest in place of that of the key which the call presents. To be one of [`spread`]; all of
    /// these share a usage line, beside that of [`Decision::make`].
    ///
    /// # Panics
    /// The call is not admitted.
    pub fn make_for(&self, digest: &Digest) {
        self.decide(|presented| {
            let _ = black_box(presented);
            *digest
        });
    }

    fn decide(&self, to_look_up: impl FnOnce(Digest) -> Digest) {
        let Self { keyring, lease, digester, limits, meter, head, bounds, .. } = self;
        form::check_form(head, *bounds).unwrap();
        let authority = route::authority(head).unwrap();
        let digest = to_look_up(digester.digest(extract::presented(head).unwrap()));
        let seen = glance(keyring, lease, &digest, clock::boot, |keyring| keyring.cluster_of(authority.host()));
        let now = clock::boot();
        let wall = clock::wall_at(now);
        let Verdict::Admit(verified) = seen.verdict(now, wall, Ipv4Addr::LOCALHOST.into()) else {
            panic!("a good key was not admitted");
        };
        let _permit = limits.admit(verified.account_id(), now).unwrap();
        let operation = route::http_operation(&head.method, head.uri.path());
        let (account_id, key_id) = (verified.account_id(), verified.key_id());
        let line = LineKey { account_id, key_id, cluster_id: verified.cluster().cluster_id, operation };
        let charge = meter.open_charge(line, wall, false).unwrap();
        let units = Units { read: Some(1), write: None };
        charge.commit(Outcome::Ok, Tally { request_bytes: 60, response_bytes: 600, units, units_missing: false });
        assert_eq!(operation, Operation::Query);
    }
}

fn begin(keyring: &Keyring) {
    let cluster = Cluster {
        cluster_id: ClusterId([3; 10]),
        account_id: OWNER,
        hosts: vec![HOST.into()],
        upstreams: vec!["http://127.0.0.1:1".into()],
        allow_ips: vec!["127.0.0.0/8".parse().unwrap()],
        version: 1,
    };
    keyring.begin(&ClustersRead { epoch: EPOCH, revision: REVISION, clusters: vec![cluster] }, REVISION);
}

fn hold(keyring: &Keyring, digest: Digest, key_id: KeyId) {
    let credential =
        Credential { key_id, account_id: OWNER, disabled: false, expires_at: None, expired: false, version: 1 };
    let account = Account { account_id: OWNER, status: AccountStatus::Active, version: 1 };
    let loaded = Loaded { epoch: EPOCH, revision: REVISION, found: Found::Key { credential, account } };
    assert_eq!(keyring.fill(&keyring.begin_load(), digest, &loaded, clock::boot()), Fill::Done);
}

/// Numbers as digests look: any bytes, all different. The keyring has those from 1 on, beside the one that is presented.
pub fn spread(number: u64) -> Digest {
    let mut bytes = [0; 32];
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..8].copy_from_slice(&mixed.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    Digest(bytes)
}
