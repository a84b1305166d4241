//! The decision over a call: key parsed, digested, looked up and admitted, with the clock read once.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::auth::keyring::Keyring;
use tollgate::auth::lease::Lease;
use tollgate::auth::{Verdict, glance};
use tollgate::clock;
use tollgate::key::{Digest, Digester, KeyText, PresentedKey};
use tollgate::principal::{Account, AccountId, AccountStatus, Cluster, ClusterId, Credential, Epoch, KeyId, Revision};
use tollgate::store::{ClustersRead, Found, Loaded};

const HOST: &str = "vectors.example";
const OWNER: AccountId = AccountId([1; 10]);
const EPOCH: Epoch = Epoch([2; 10]);
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A keyring with one cluster and this many keys, of which the first is `first`.
fn keyring(keys: u64, first: Digest) -> Keyring {
    let keyring = Keyring::default();
    let cluster = Cluster {
        cluster_id: ClusterId([3; 10]),
        account_id: OWNER,
        hosts: vec![HOST.into()],
        upstreams: Vec::new(),
        allow_ips: Vec::new(),
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
    for number in 0..keys {
        let digest = if number == 0 { first } else { spread(number) };
        let _ = keyring.fill(&keyring.begin_load(), digest, &loaded, clock::boot());
    }
    keyring
}

/// Numbers as digests look: any bytes, all different.
fn spread(number: u64) -> Digest {
    let mut bytes = [0; 32];
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..8].copy_from_slice(&mixed.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    Digest(bytes)
}

fn decide(keyring: &Keyring, lease: &Lease, digester: &Digester, key: &[u8]) -> bool {
    let Ok(key) = PresentedKey::parse(key) else {
        return false;
    };
    let digest = digester.digest(key);
    let seen = glance(keyring, lease, &digest, clock::boot, |keyring| keyring.cluster_of(HOST));
    let now = clock::boot();
    matches!(seen.verdict(now, clock::wall_at(now), FROM), Verdict::Admit(_))
}

fn hot_path(criterion: &mut Criterion) {
    let digester = Digester::new(&[7; 32]);
    let Ok(key) = KeyText::generate() else {
        return;
    };
    let bytes = key.expose().as_bytes();
    criterion.bench_function("key parse", |bench| bench.iter(|| PresentedKey::parse(black_box(bytes)).is_ok()));
    criterion.bench_function("malformed key", |bench| {
        let malformed = [bytes.split_last().map_or(bytes, |(_, head)| head), b"!"].concat();
        bench.iter(|| PresentedKey::parse(black_box(&malformed)).is_err());
    });
    criterion.bench_function("digest", |bench| bench.iter(|| digester.digest(black_box(key.presented()))));
    criterion.bench_function("clock", |bench| bench.iter(clock::boot));
    let lease = Lease::default();
    lease.extend(clock::boot(), Duration::from_secs(24 * 3600));
    for keys in [1_000, 1_000_000] {
        let keyring = keyring(keys, digester.digest(key.presented()));
        criterion.bench_function(&format!("admission, {keys} keys: parse + digest + lookup + lease"), |bench| {
            bench.iter(|| assert!(decide(&keyring, &lease, &digester, black_box(bytes))));
        });
        criterion.bench_function(&format!("lookup, {keys} keys, random hits"), |bench| {
            let mut number = 0;
            bench.iter(|| {
                number = (number + 7_919) % (keys - 1);
                keyring.look_up(&spread(number + 1), clock::boot)
            });
        });
    }
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
