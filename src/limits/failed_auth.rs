//! Bad credentials per source address. Only a call that is denied anyway comes here, so a good key from the same address pays
//! nothing and waits for nobody.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::connection::network_of;
use super::failure::FailureThrottle;
use crate::config::LimitsConfig;
use crate::time::BootTime;
use crate::verdict::Denial;

/// Networks remembered at once; those that have failed least are forgotten first.
const NETWORKS: usize = 65_536;
/// Calls with a bad key on one connection that are answered at once.
const AT_ONCE: u32 = 32;
/// However many calls come at once on a connection, none waits longer for its answer.
const HELD_MOST: Duration = Duration::from_secs(5);

/// How many bad keys an address may show. IPv6 counts per /64.
pub struct FailedAuth(Option<FailureThrottle<IpAddr>>);

impl FailedAuth {
    /// `burst` failures at once and `rate` more per second; a rate of 0 is no limit.
    pub fn new(rate: u32, burst: u32) -> Self {
        let every = Duration::from_secs(1).checked_div(rate);
        Self(every.map(|every| FailureThrottle::new(burst, every, NETWORKS)))
    }

    /// What a call with a bad key is answered; it counts. Beyond the rate the caller learns no more than that.
    pub fn denial(&self, from: IpAddr, now: BootTime) -> Denial {
        let Some(throttle) = &self.0 else { return Denial::NotValid };
        match throttle.try_count(network_of(from.to_canonical()), now) {
            Ok(()) => Denial::NotValid,
            Err(retry_after) => Denial::Limited { retry_after },
        }
    }

    /// Whether bad keys of this address are refused by now. A key that is not known here may be good all the same: it is looked
    /// for in the store, after those of others who do the same. It counts nothing.
    pub fn is_over_its_rate(&self, from: IpAddr, now: BootTime) -> bool {
        let throttle = self.0.as_ref();
        throttle.is_some_and(|throttle| throttle.check(&network_of(from.to_canonical()), now).is_err())
    }
}

impl From<&LimitsConfig> for FailedAuth {
    fn from(limits: &LimitsConfig) -> Self {
        Self::new(limits.failed_auth_rate, limits.failed_auth_burst)
    }
}

/// What the keys of one connection's calls were like. A client that has shown nothing but bad ones is answered after a pause, and one call
/// after the other: it asks no faster than its answers come, so what it takes from others is small, however fast it could ask. Where a
/// good key was shown nothing is ever held back, since clients behind one proxy share its connections.
#[derive(Debug, Default)]
pub struct ShownKeys {
    bad: AtomicU32,
    /// When the last answer that was held back goes out.
    last_at: AtomicU64,
}

impl ShownKeys {
    /// In place of the number of bad keys: there was a good one.
    const HAS_GOOD: u32 = u32::MAX;

    pub fn good(&self) {
        if self.bad.load(Ordering::Relaxed) != Self::HAS_GOOD {
            self.bad.store(Self::HAS_GOOD, Ordering::Relaxed);
        }
    }

    /// Counts a key that was denied, and says for how long the answer is held back: after many on this connection, or where the address
    /// has shown too many. `delay` is the time between two such answers.
    pub fn bad(&self, denial: Denial, delay: Duration, now: BootTime) -> Option<Duration> {
        let is_over_its_rate = match denial {
            Denial::NotValid | Denial::TwoKeys | Denial::KeyInQuery => false,
            Denial::Limited { .. } => true,
            _ => return None,
        };
        let so_far = self.bad.load(Ordering::Relaxed);
        if so_far == Self::HAS_GOOD {
            return None;
        }
        self.bad.store((so_far + 1).min(Self::HAS_GOOD - 1), Ordering::Relaxed);
        if delay.is_zero() || !is_over_its_rate && so_far < AT_ONCE {
            return None;
        }
        let after = BootTime(self.last_at.load(Ordering::Relaxed)).max(now);
        let at = after.plus(delay).min(now.plus(HELD_MOST));
        self.last_at.store(at.0, Ordering::Relaxed);
        Some(at.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime(1_000_000_000).plus(Duration::from_millis(millis))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn beyond_the_rate_bad_keys_of_one_address_are_limited_and_others_are_not() {
        let failed = FailedAuth::new(10, 3);
        for _ in 0..3 {
            assert!(!failed.is_over_its_rate(ip("1.1.1.1"), at(0)));
            assert_eq!(failed.denial(ip("1.1.1.1"), at(0)), Denial::NotValid);
        }
        let limited = Denial::Limited { retry_after: Duration::from_millis(100) };
        assert_eq!(failed.denial(ip("1.1.1.1"), at(0)), limited);
        assert!(failed.is_over_its_rate(ip("::ffff:1.1.1.1"), at(0)));
        assert_eq!(failed.denial(ip("1.1.1.2"), at(0)), Denial::NotValid);
        assert!(!failed.is_over_its_rate(ip("1.1.1.1"), at(100)));
        assert_eq!(failed.denial(ip("1.1.1.1"), at(100)), Denial::NotValid);
        assert_eq!(failed.denial(ip("1.1.1.1"), at(100)), limited);
    }

    #[test]
    fn ipv6_counts_per_64_and_a_rate_of_zero_is_no_limit() {
        let failed = FailedAuth::new(1, 1);
        assert_eq!(failed.denial(ip("2001:db8:0:1::1"), at(0)), Denial::NotValid);
        assert!(failed.is_over_its_rate(ip("2001:db8:0:1::2"), at(0)));
        assert!(!failed.is_over_its_rate(ip("2001:db8:0:2::2"), at(0)));
        let none = FailedAuth::new(0, 1);
        assert!((0..100).all(|_| none.denial(ip("1.1.1.1"), at(0)) == Denial::NotValid));
        assert!(!none.is_over_its_rate(ip("1.1.1.1"), at(0)));
    }

    const LIMITED: Denial = Denial::Limited { retry_after: Duration::from_secs(1) };

    const DELAY: Duration = Duration::from_millis(50);

    fn is_held(shown: &ShownKeys, denial: Denial) -> bool {
        shown.bad(denial, DELAY, at(0)).is_some()
    }

    #[test]
    fn answers_are_held_back_after_many_bad_keys_on_a_connection_or_beyond_the_rate_of_its_address() {
        for denial in [Denial::NotValid, Denial::TwoKeys, Denial::KeyInQuery] {
            let shown = ShownKeys::default();
            assert!((0..AT_ONCE).all(|_| !is_held(&shown, denial)));
            assert!((0..100).all(|_| is_held(&shown, denial)));
            assert_eq!(shown.bad(denial, Duration::ZERO, at(0)), None);
        }
        assert!(is_held(&ShownKeys::default(), LIMITED));
    }

    #[test]
    fn answers_of_one_connection_go_out_one_after_the_other_and_none_waits_for_too_long() {
        let shown = ShownKeys::default();
        for number in 1..=100 {
            assert_eq!(shown.bad(LIMITED, DELAY, at(0)), Some(DELAY * number));
        }
        assert_eq!(shown.bad(LIMITED, DELAY, at(0)), Some(HELD_MOST));
        assert_eq!(shown.bad(LIMITED, DELAY, at(1000)), Some(HELD_MOST - Duration::from_secs(1) + DELAY));
        assert_eq!(shown.bad(LIMITED, DELAY, at(60_000)), Some(DELAY));
    }

    #[test]
    fn nothing_is_held_back_after_a_good_key_nor_what_says_nothing_of_the_key() {
        let shown = ShownKeys::default();
        assert!((0..1000).all(|_| !is_held(&shown, Denial::CannotVerify)));
        assert!((0..=AT_ONCE).any(|_| is_held(&shown, Denial::NotValid)));
        shown.good();
        assert!((0..1000).all(|_| !is_held(&shown, Denial::NotValid) && !is_held(&shown, LIMITED)));
    }
}
