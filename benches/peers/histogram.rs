//! Latencies counted in buckets, 32 to each doubling: a quantile is at most 3 % off.

use std::time::Duration;

const STEPS: usize = 32;
/// Up to 2⁴⁰ ns, which is 18 minutes.
const BUCKETS: usize = STEPS * 36;

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// Microseconds that this share of the latencies, from 0 to 1, did not exceed; 0 where nothing was recorded.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        reached.map_or(0.0, |bucket| upper_end(bucket) as f64 / 1000.0)
    }
}

/// Numbers below `STEPS` have a bucket each; above, the five bits after the first choose one of the steps of its doubling.
fn bucket(nanos: u64) -> usize {
    let doubling = nanos.max(1).ilog2() as usize;
    if doubling < 5 {
        return nanos as usize;
    }
    let step = (nanos >> (doubling - 5)) as usize - STEPS;
    (STEPS * (doubling - 4) + step).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (doubling, step) = (bucket / STEPS + 4, bucket % STEPS);
    (((STEPS + step + 1) as u64) << (doubling - 5)) - 1
}
