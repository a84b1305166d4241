//! Throttles that count failures and nothing else. Pure: the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

use crate::time::BootTime;

/// For each `K` a bucket of failures that drains with time. Full buckets say how long to wait.
///
/// The map is bounded: when it is full the buckets that are nearest to empty are forgotten first.
pub struct FailureThrottle<K> {
    allowed: u32,
    drains_one_in: Duration,
    most: usize,
    /// When each bucket will be empty.
    empty_at: Mutex<HashMap<K, BootTime>>,
}

impl<K: Eq + Hash> FailureThrottle<K> {
    /// `allowed` failures at once, and one more every `drains_one_in`; at most `most` buckets.
    pub fn new(allowed: u32, drains_one_in: Duration, most: usize) -> Self {
        Self { allowed, drains_one_in, most, empty_at: Mutex::default() }
    }

    /// Err with the time to wait when the bucket is full.
    pub fn check(&self, key: &K, now: BootTime) -> Result<(), Duration> {
        let wait = self.wait(self.empty_at.lock().get(key).copied(), now);
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Checks and counts in one step, so that many at once do not slip past.
    pub fn try_count(&self, key: K, now: BootTime) -> Result<(), Duration> {
        let mut buckets = self.empty_at.lock();
        let wait = self.wait(buckets.get(&key).copied(), now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.count(&mut buckets, key, now);
        Ok(())
    }

    pub fn count_failure(&self, key: K, now: BootTime) {
        self.count(&mut self.empty_at.lock(), key, now);
    }

    fn wait(&self, empty_at: Option<BootTime>, now: BootTime) -> Duration {
        let room_until = self.drains_one_in.saturating_mul(self.allowed.saturating_sub(1));
        empty_at.unwrap_or_default().since(now).saturating_sub(room_until)
    }

    fn count(&self, buckets: &mut HashMap<K, BootTime>, key: K, now: BootTime) {
        if buckets.len() >= self.most && !buckets.contains_key(&key) {
            forget_nearest_to_empty(buckets, now);
        }
        // A bucket holds at most what is allowed, so failures that are refused anyway do not lengthen the wait.
        let full = now.plus(self.drains_one_in.saturating_mul(self.allowed));
        let bucket = buckets.entry(key).or_default();
        *bucket = (*bucket).max(now).plus(self.drains_one_in).min(full);
    }

    pub fn forget(&self, key: &K) {
        self.empty_at.lock().remove(key);
    }
}

/// Makes room for a quarter of the map at once, so that a flood of new keys costs little for each.
fn forget_nearest_to_empty<K: Eq + Hash>(buckets: &mut HashMap<K, BootTime>, now: BootTime) {
    let mut times: Vec<BootTime> = buckets.values().copied().collect();
    let quarter = times.len() / 4;
    let (_, limit, _) = times.select_nth_unstable(quarter);
    let limit = (*limit).max(now);
    buckets.retain(|_, empty_at| *empty_at > limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    #[test]
    fn a_bucket_refuses_when_full_and_drains_with_time() {
        let throttle = FailureThrottle::new(3, SECOND, 8);
        for _ in 0..3 {
            assert_eq!(throttle.check(&"a", at(10)), Ok(()));
            throttle.count_failure("a", at(10));
        }
        assert_eq!(throttle.check(&"a", at(10)), Err(SECOND));
        assert_eq!(throttle.check(&"b", at(10)), Ok(()));
        assert_eq!(throttle.check(&"a", at(11)), Ok(()));
        throttle.count_failure("a", at(11));
        assert_eq!(throttle.check(&"a", at(11)), Err(SECOND));
        throttle.forget(&"a");
        assert_eq!(throttle.check(&"a", at(11)), Ok(()));
    }

    #[test]
    fn of_many_at_once_no_more_than_allowed_are_counted() {
        let throttle = FailureThrottle::new(3, SECOND, 8);
        assert_eq!((0..100).filter(|_| throttle.try_count("a", at(10)).is_ok()).count(), 3);
        assert_eq!(throttle.check(&"a", at(10)), Err(SECOND));
    }

    #[test]
    fn failures_that_are_refused_do_not_lengthen_the_wait() {
        let throttle = FailureThrottle::new(3, SECOND, 8);
        (0..1000).for_each(|_| throttle.count_failure("a", at(10)));
        assert_eq!(throttle.check(&"a", at(10)), Err(SECOND));
    }

    #[test]
    fn the_map_is_bounded_and_keeps_the_fullest_buckets() {
        let throttle = FailureThrottle::new(3, SECOND, 64);
        (0..3).for_each(|_| throttle.count_failure(u64::MAX, at(10)));
        (0..10_000).for_each(|key| throttle.count_failure(key, at(10)));
        assert!(throttle.empty_at.lock().len() <= 64);
        assert!(throttle.check(&u64::MAX, at(10)).is_err());
    }
}
