//! Bad credentials per source address. Only a call that is denied anyway comes here, so a good key from the same address pays
//! nothing and waits for nobody.

use std::net::IpAddr;
use std::time::Duration;

use super::connection::network_of;
use super::failure::FailureThrottle;
use crate::config::LimitsConfig;
use crate::time::BootTime;
use crate::verdict::Denial;

/// Networks remembered at once; those that have failed least are forgotten first.
const NETWORKS: usize = 65_536;

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
}
