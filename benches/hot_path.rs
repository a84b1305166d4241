//! The decision over a call, whole and in parts, with few keys and with very many; and what holding a key takes of memory.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up can only stop")]

#[path = "../tests/decision/mod.rs"]
mod decision;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::auth::keyring::Seen;
use tollgate::clock;
use tollgate::key::{Digester, KeyText, PresentedKey};

use self::decision::{Decision, spread};

/// As many keys as a gateway is to hold in 1.5 GB.
const KEYS: [u64; 3] = [1_000, 1_000_000, 10_000_000];

fn key(criterion: &mut Criterion) {
    let digester = Digester::new(&[7; 32]);
    let key = KeyText::generate().unwrap();
    let bytes = key.expose().as_bytes();
    criterion.bench_function("key parse", |bench| bench.iter(|| PresentedKey::parse(black_box(bytes)).is_ok()));
    criterion.bench_function("malformed key", |bench| {
        let malformed = [bytes.split_last().map_or(bytes, |(_, head)| head), b"!"].concat();
        bench.iter(|| PresentedKey::parse(black_box(&malformed)).is_err());
    });
    criterion.bench_function("digest", |bench| bench.iter(|| digester.digest(black_box(key.presented()))));
    criterion.bench_function("clock", |bench| bench.iter(clock::boot));
}

fn decision(criterion: &mut Criterion) {
    for keys in KEYS {
        let before = resident();
        let decision = Decision::among(keys);
        let taken = resident().saturating_sub(before);
        println!("{keys} keys: {} MiB resident, {} bytes a key", taken >> 20, taken / keys);
        criterion.bench_function(&format!("decision, {keys} keys"), |bench| bench.iter(|| decision.make()));
        another_each_time(criterion, &decision, keys);
        criterion.bench_function(&format!("lookup, {keys} keys, random hits"), |bench| {
            let mut number = 0;
            bench.iter(|| {
                number = (number + 7_919_993) % (keys - 1);
                let seen = decision.keyring.look_up(&spread(number + 1), clock::boot);
                assert!(matches!(seen, Seen::Key { .. }));
            });
        });
        criterion.bench_function(&format!("lookup, {keys} keys, none of them"), |bench| {
            let mut number = keys;
            bench.iter(|| {
                number += 7_919_993;
                decision.keyring.look_up(&spread(number), clock::boot)
            });
        });
    }
}

/// The memory that a decision reads of its key is then seldom in the processor's caches. The number goes on from sample to sample, so that
/// none finds what the one before it brought there.
fn another_each_time(criterion: &mut Criterion, decision: &Decision, keys: u64) {
    let mut number = 0;
    criterion.bench_function(&format!("decision, {keys} keys, another key each time"), |bench| {
        bench.iter(|| {
            number = (number + 7_919_993) % (keys - 1);
            decision.make_for(&spread(number + 1));
        });
    });
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

criterion_group!(benches, key, decision);
criterion_main!(benches);
