//! How long an export of the usage of many accounts takes, without what the network takes.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tollgate::control::export::{Exposition, Pieces};
use tollgate::meter::record::{Counters, Operation};
use tollgate::principal::{AccountId, ClusterId};
use tollgate::store::UsageTotal;

/// Of each account, cluster and operation.
const SERIES: u64 = 12;

fn totals(count: u64) -> Vec<UsageTotal> {
    let total = |n: u64| {
        let mut id = [0xa5; 10];
        id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let outcomes = [n << 20, n, 0, n % 7, n % 3, 0];
        let counters = Counters { outcomes, read_units: n << 22, response_bytes: n << 33, ..Counters::default() };
        UsageTotal { account_id: AccountId(id), cluster_id: ClusterId(id), operation: Operation::Query, counters }
    };
    (0..count).map(total).collect()
}

fn exports(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("export");
    group.sample_size(20);
    for (name, series) in [("100k series", 100_000), ("1M series", 1_000_000)] {
        let totals = totals(series / SERIES);
        group.throughput(Throughput::Elements(series));
        for exposition in [Exposition::Text, Exposition::OpenMetrics, Exposition::Protobuf] {
            group.bench_function(BenchmarkId::new(format!("{exposition:?}"), name), |bencher| {
                bencher.iter_batched(
                    || totals.clone(),
                    |totals| Pieces::new(totals, exposition).for_each(|piece| drop(black_box(piece))),
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, exports);
criterion_main!(benches);
