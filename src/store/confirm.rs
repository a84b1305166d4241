//! Who has to apply a change before it holds everywhere, and who has (design, section 5).

use std::time::Duration;

use crate::principal::{Incarnation, Revision};

/// A registered gateway, as the store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayState {
    pub incarnation: Incarnation,
    /// Everything up to here is in force on it.
    pub applied: Revision,
    /// Since its last renewal.
    pub silent_for: Duration,
    /// It may still hold a lease. Once false it admits nothing until it has renewed and caught up.
    pub leased: bool,
    /// Of its program, as it says itself.
    pub version: String,
}

/// A gateway that has applied the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub incarnation: Incarnation,
    /// From the change to its acknowledgement. Absent where that was too long ago to be remembered.
    pub after: Option<Duration>,
}

/// How far a change has come. It holds everywhere once `unconfirmed` is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    pub revision: Revision,
    pub acknowledged: Vec<Acknowledged>,
    /// Gateways whose lease has run out since: they admit nothing before they have applied the change.
    pub lapsed: Vec<Incarnation>,
    /// Gateways that may still act on what was before.
    pub unconfirmed: Vec<Incarnation>,
    /// From now until the last of `unconfirmed` has lost its lease; zero where there is none.
    pub at_latest: Duration,
}

impl Confirmation {
    pub fn is_everywhere(&self) -> bool {
        self.unconfirmed.is_empty()
    }
}

/// Two clocks may differ by this rate (ρ), and this is the grace on top (ε).
const CLOCK_RATE: f64 = 1.001;
const GRACE: Duration = Duration::from_millis(20);

/// How long after its last renewal a gateway may still hold its lease, measured on another clock: L(1+ρ)+ε.
pub fn outwait(lease: Duration) -> Duration {
    lease.mul_f64(CLOCK_RATE) + GRACE
}
