//! Counts what makes work and carries no call: a client may do some of it, and none needs much.

use tokio::time::Instant;

/// So much at once, and so much per second after that.
#[derive(Debug)]
pub struct Budget {
    burst: u32,
    per_second: u32,
    left: u32,
    refilled: Option<Instant>,
}

impl Budget {
    /// Frames in a row without any of a call between them: PING and SETTINGS, which are answered, and what is passed over. A client that
    /// measures its line sends a PING for each round trip.
    pub const fn of_frames() -> Self {
        Self::new(10_000, 1000)
    }

    /// Streams that end before they were answered: reset by the other side, or by us since they are malformed or too many. A client may
    /// well give up all that it has open, time and again.
    pub const fn of_resets() -> Self {
        Self::new(2000, 500)
    }

    const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second, left: burst, refilled: None }
    }

    /// There was something of a call: all of it may be spent again.
    pub fn refill(&mut self) {
        self.left = self.burst;
    }

    /// False: it is more than there is. The clock is asked only where the budget is used up.
    pub fn spend(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.left == 0 {
            let now = now();
            // The first time there is nothing to measure from, so that one second is given.
            self.left = self.refilled.map_or(self.per_second, |at| {
                let millis = now.duration_since(at).as_millis().min(1000);
                u32::try_from(millis).unwrap_or_default() * self.per_second / 1000
            });
            self.refilled = Some(now);
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or_default();
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How much is taken at once, at most `most`.
    fn taken(budget: &mut Budget, most: u32, now: Instant) -> u32 {
        (0..most).take_while(|_| budget.spend(|| now)).count() as u32
    }

    #[test]
    fn more_than_a_burst_and_a_rate_is_refused() {
        let (mut budget, now) = (Budget::new(100, 10), Instant::now());
        assert_eq!(taken(&mut budget, 300, now), 110);
        let later = now + Duration::from_millis(500);
        assert_eq!(taken(&mut budget, 300, later), 5);
        assert!(!budget.spend(|| later));
        budget.refill();
        assert_eq!(taken(&mut budget, 100, later), 100);
    }
}
