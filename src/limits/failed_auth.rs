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

    /// Whether the store may be asked for a key that is not known here; a known key never needs it. It counts nothing: the key
    /// may be good.
    pub fn check_load(&self, from: IpAddr, now: BootTime) -> Result<(), Denial> {
        let Some(throttle) = &self.0 else { return Ok(()) };
        let full = throttle.check(&network_of(from.to_canonical()), now);
        full.map_err(|retry_after| Denial::Limited { retry_after })
    }

    /// The store was asked, and the key is a bad one. However many were asked for at once, on average they keep to the rate.
    pub fn loaded_in_vain(&self, from: IpAddr, now: BootTime) -> Denial {
        if let Some(throttle) = &self.0 {
            throttle.count_debt(network_of(from.to_canonical()), now);
        }
        Denial::NotValid
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
            assert_eq!(failed.check_load(ip("1.1.1.1"), at(0)), Ok(()));
            assert_eq!(failed.denial(ip("1.1.1.1"), at(0)), Denial::NotValid);
        }
        let limited = Denial::Limited { retry_after: Duration::from_millis(100) };
        assert_eq!(failed.denial(ip("1.1.1.1"), at(0)), limited);
        assert_eq!(failed.check_load(ip("::ffff:1.1.1.1"), at(0)), Err(limited));
        assert_eq!(failed.denial(ip("1.1.1.2"), at(0)), Denial::NotValid);
        assert_eq!(failed.check_load(ip("1.1.1.1"), at(100)), Ok(()));
        assert_eq!(failed.loaded_in_vain(ip("1.1.1.1"), at(100)), Denial::NotValid);
        assert_eq!(failed.denial(ip("1.1.1.1"), at(100)), limited);
    }

    #[test]
    fn ipv6_counts_per_64_and_a_rate_of_zero_is_no_limit() {
        let failed = FailedAuth::new(1, 1);
        assert_eq!(failed.denial(ip("2001:db8:0:1::1"), at(0)), Denial::NotValid);
        assert!(failed.check_load(ip("2001:db8:0:1::2"), at(0)).is_err());
        assert!(failed.check_load(ip("2001:db8:0:2::2"), at(0)).is_ok());
        let none = FailedAuth::new(0, 1);
        assert!((0..100).all(|_| none.denial(ip("1.1.1.1"), at(0)) == Denial::NotValid));
        assert!(none.check_load(ip("1.1.1.1"), at(0)).is_ok());
    }
}
