//! Calls per account: how many at once, and how many per second. Both are off unless configured, and cost nothing then.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::config::LimitsConfig;
use crate::principal::{AccountId, RandomAlready};
use crate::time::BootTime;
use crate::verdict::Denial;

/// How long a client that has too many calls in flight is asked to wait. Nobody knows when one of them ends.
const CONCURRENCY_RETRY: Duration = Duration::from_secs(1);

/// Below this number of accounts nothing is swept.
const SWEEP_FLOOR: usize = 1024;

/// What every account may do. 0 means no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccountLimits {
    /// Calls in flight.
    pub concurrency: u32,
    /// Calls per second.
    pub rate: u32,
    /// Calls that may come at once when there is a rate; at least 1.
    pub burst: u32,
}

impl From<&LimitsConfig> for AccountLimits {
    fn from(limits: &LimitsConfig) -> Self {
        Self { concurrency: limits.account_concurrency, rate: limits.account_rate, burst: limits.account_burst }
    }
}

/// The accounts with calls in flight or a rate to pay off; others take no memory.
#[derive(Clone, Debug)]
pub struct Limits(Option<Arc<Table>>);

/// Evidence that a call is within the limits of its account. Held until the call is over.
#[derive(Debug)]
#[must_use = "dropping it says that the call is over"]
pub struct Permit {
    account: AccountId,
    in_flight: Option<Arc<Table>>,
}

impl Permit {
    pub const fn account(&self) -> AccountId {
        self.account
    }
}

impl Limits {
    pub fn new(limits: AccountLimits) -> Self {
        if limits.concurrency == 0 && limits.rate == 0 {
            return Self(None);
        }
        Self(Some(Arc::new(Table {
            rate: Rate::new(limits),
            limits,
            states: DashMap::default(),
            sweep_at: AtomicUsize::new(SWEEP_FLOOR),
        })))
    }

    /// Admits a call, or says when to try again. A call over the first limit uses up nothing of the second.
    pub fn admit(&self, account: AccountId, now: BootTime) -> Result<Permit, Denial> {
        let Some(table) = &self.0 else { return Ok(Permit { account, in_flight: None }) };
        table.sweep(now);
        table.take(account, now).map_err(|retry_after| Denial::Limited { retry_after })?;
        let in_flight = (table.limits.concurrency > 0).then(|| Arc::clone(table));
        Ok(Permit { account, in_flight })
    }

    /// How many accounts take memory.
    pub fn tracked(&self) -> usize {
        self.0.as_ref().map_or(0, |table| table.states.len())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(table) = self.in_flight.take() {
            table.give_back(self.account);
        }
    }
}

#[derive(Debug)]
struct Table {
    limits: AccountLimits,
    rate: Rate,
    states: DashMap<AccountId, State, RandomAlready>,
    /// The number of accounts from which on idle ones are looked for.
    sweep_at: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    in_flight: u32,
    /// When everything admitted so far is paid off at the given rate.
    paid_at: BootTime,
}

impl Table {
    fn take(&self, account: AccountId, now: BootTime) -> Result<(), Duration> {
        let entry = self.states.entry(account);
        let mut state = if let Entry::Occupied(known) = &entry { *known.get() } else { State::default() };
        if self.limits.concurrency > 0 {
            if state.in_flight >= self.limits.concurrency {
                return Err(CONCURRENCY_RETRY);
            }
            state.in_flight += 1;
        }
        state.paid_at = self.rate.pay(state.paid_at, now)?;
        entry.insert(state);
        Ok(())
    }

    fn give_back(&self, account: AccountId) {
        let Entry::Occupied(mut known) = self.states.entry(account) else { return };
        let state = known.get_mut();
        state.in_flight = state.in_flight.saturating_sub(1);
        // With a rate the account may still have to pay, and no clock is read here: a sweep finds it.
        if state.in_flight == 0 && self.limits.rate == 0 {
            known.remove();
        }
    }

    /// Forgets idle accounts whenever their number has doubled, so that each admission bears a constant share of the
    /// work.
    fn sweep(&self, now: BootTime) {
        let due = self.sweep_at.load(Ordering::Relaxed);
        if self.limits.rate == 0 || self.states.len() < due {
            return;
        }
        // One thread sweeps; the others go on.
        if self.sweep_at.compare_exchange(due, usize::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.states.retain(|_, state| state.in_flight > 0 || state.paid_at > now);
            self.sweep_at.store(self.states.len().saturating_mul(2).max(SWEEP_FLOOR), Ordering::Relaxed);
        }
    }
}

/// The generic cell rate algorithm: each call is worth a span of time, and may be ahead of the clock by the burst.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_call: Duration,
    ahead: Duration,
}

impl Rate {
    fn new(limits: AccountLimits) -> Self {
        if limits.rate == 0 {
            return Self { per_call: Duration::ZERO, ahead: Duration::ZERO };
        }
        let per_call = Duration::from_secs(1) / limits.rate;
        Self { per_call, ahead: per_call.saturating_mul(limits.burst.saturating_sub(1)) }
    }

    /// The new time of payment, or how long to wait.
    fn pay(self, paid_at: BootTime, now: BootTime) -> Result<BootTime, Duration> {
        let early = paid_at.since(now).saturating_sub(self.ahead);
        if self.per_call.is_zero() {
            return Ok(paid_at);
        }
        if early.is_zero() { Ok(paid_at.max(now).plus(self.per_call)) } else { Err(early) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::ID_BYTES;

    const A: AccountId = AccountId([1; ID_BYTES]);
    const B: AccountId = AccountId([2; ID_BYTES]);

    fn limits(concurrency: u32, rate: u32, burst: u32) -> Limits {
        Limits::new(AccountLimits { concurrency, rate, burst })
    }

    fn at(millis: u64) -> BootTime {
        BootTime(1_000_000_000).plus(Duration::from_millis(millis))
    }

    #[test]
    fn without_limits_nothing_is_remembered() {
        let limits = limits(0, 0, 9);
        let permits: Vec<_> = (0..1000).map(|_| limits.admit(A, at(0)).unwrap()).collect();
        assert_eq!((permits.len(), limits.tracked()), (1000, 0));
        assert_eq!(permits[0].account(), A);
    }

    #[test]
    fn calls_in_flight_are_counted_per_account_and_given_back() {
        let limits = limits(2, 0, 0);
        let first = limits.admit(A, at(0)).unwrap();
        let second = limits.admit(A, at(0)).unwrap();
        assert!(matches!(limits.admit(A, at(0)), Err(Denial::Limited { .. })));
        let other = limits.admit(B, at(0)).unwrap();
        drop(first);
        let third = limits.admit(A, at(0)).unwrap();
        assert!(limits.admit(A, at(0)).is_err());
        drop((second, third, other));
        assert_eq!(limits.tracked(), 0);
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_then_one_at_a_time() {
        let limits = limits(0, 10, 3);
        for _ in 0..3 {
            let _ = limits.admit(A, at(0)).unwrap();
        }
        assert_eq!(limits.admit(A, at(0)).unwrap_err(), Denial::Limited { retry_after: Duration::from_millis(100) });
        assert_eq!(limits.admit(A, at(60)).unwrap_err(), Denial::Limited { retry_after: Duration::from_millis(40) });
        assert!(limits.admit(A, at(100)).is_ok());
        assert!(limits.admit(A, at(100)).is_err());
        assert!(limits.admit(B, at(100)).is_ok());
        assert_eq!((0..9).filter(|_| limits.admit(A, at(10_000)).is_ok()).count(), 3);
    }

    #[test]
    fn over_a_long_time_exactly_the_rate_is_admitted() {
        let limits = limits(0, 7, 1);
        let admitted = (0..60_000).filter(|millis| limits.admit(A, at(*millis)).is_ok()).count();
        assert!((7 * 59..=7 * 60).contains(&admitted), "{admitted}");
    }

    #[test]
    fn a_call_over_the_concurrency_uses_up_no_rate() {
        let limits = limits(1, 1, 2);
        let first = limits.admit(A, at(0)).unwrap();
        for _ in 0..10 {
            assert!(limits.admit(A, at(0)).is_err());
        }
        drop(first);
        assert!(limits.admit(A, at(0)).is_ok());
        assert!(limits.admit(A, at(0)).is_err());
    }

    #[test]
    fn a_refused_account_leaves_nothing_in_flight() {
        let limits = limits(5, 1, 1);
        drop(limits.admit(A, at(0)).unwrap());
        for _ in 0..10 {
            assert!(limits.admit(A, at(0)).is_err());
        }
        let permits: Vec<_> = (1..=5).map(|second| limits.admit(A, at(second * 1000)).unwrap()).collect();
        assert_eq!(permits.len(), 5);
    }

    fn account(n: u64) -> AccountId {
        let mut id = [0; ID_BYTES];
        id[..8].copy_from_slice(&n.to_be_bytes());
        AccountId(id)
    }

    #[test]
    fn an_account_with_a_call_in_flight_is_not_forgotten() {
        let limits = limits(1, 10, 1);
        let _held = limits.admit(A, at(0)).unwrap();
        for n in 0..10_000 {
            drop(limits.admit(account(n), at(n)).unwrap());
        }
        assert!(limits.admit(A, at(20_000)).is_err());
    }

    #[test]
    fn idle_accounts_are_forgotten() {
        let limits = limits(0, 10, 1);
        for n in 0..100_000 {
            let _ = limits.admit(account(n), at(n)).unwrap();
            assert!(limits.tracked() <= SWEEP_FLOOR);
        }
    }

    #[test]
    fn no_thread_gets_more_than_the_limit_and_all_is_given_back() {
        let limits = limits(3, 0, 0);
        let in_flight = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Ok(permit) = limits.admit(A, at(0)) {
                            assert!(in_flight.fetch_add(1, Ordering::SeqCst) < 3);
                            in_flight.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(limits.tracked(), 0);
    }
}
