//! Counters by label, where the labels are values of a type: no text comes from outside, and no series is made late.

use std::marker::PhantomData;
use std::mem;

use prometheus::{IntCounter, IntCounterVec, Opts};

use crate::limits::Full;
use crate::meter::record::Outcome;
use crate::verdict::Denial;

/// Something that calls or connections are counted by.
pub trait Label: Sized + 'static {
    /// The names of the labels.
    const NAMES: &'static [&'static str];

    /// Every value once, each at its [`Label::place`].
    fn all() -> Vec<Self>;
    fn place(&self) -> usize;
    /// The text of each label, in the order of [`Label::NAMES`].
    fn texts(&self) -> Vec<&'static str>;
}

/// One counter for each value of a label.
pub struct Counted<L> {
    counters: Vec<IntCounter>,
    /// Stands in for a place that is not there, so that counting never fails.
    spare: IntCounter,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Counted<L> {
    /// The family to register, and the counters of it.
    pub(super) fn new(name: &str, help: &str) -> Result<(IntCounterVec, Self), prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), L::NAMES)?;
        let counter = |label: L| family.get_metric_with_label_values(&label.texts());
        let counters = L::all().into_iter().map(counter).collect::<Result<_, _>>()?;
        let spare = IntCounter::new("tollgate_spare", "Never registered.")?;
        Ok((family, Self { counters, spare, label: PhantomData }))
    }

    pub fn of(&self, label: &L) -> &IntCounter {
        self.counters.get(label.place()).unwrap_or(&self.spare)
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $type:ident by $name:literal { $($(#[$inner:meta])* $variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$inner])* $variant),+ }

        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl Label for $type {
            const NAMES: &'static [&'static str] = &[$name];

            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn place(&self) -> usize {
                *self as usize
            }

            fn texts(&self) -> Vec<&'static str> {
                vec![self.name()]
            }
        }
    };
}

labels! {
    /// How a call came in.
    Protocol by "protocol" {
        Http => "http",
        Grpc => "grpc",
    }
}

labels! {
    /// How a call ended, denied ones included.
    CallOutcome by "outcome" {
        Ok => "ok",
        Refused => "refused",
        UpstreamError => "upstream_error",
        Timeout => "timeout",
        ClientAbort => "client_abort",
        Aborted => "aborted",
        /// Answered by the gateway itself; not billed.
        Denied => "denied",
    }
}

impl From<Outcome> for CallOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Ok => Self::Ok,
            Outcome::Refused => Self::Refused,
            Outcome::UpstreamError => Self::UpstreamError,
            Outcome::Timeout => Self::Timeout,
            Outcome::ClientAbort => Self::ClientAbort,
            Outcome::Aborted => Self::Aborted,
        }
    }
}

labels! {
    /// Why a connection was refused, or cut while it was open.
    ConnectionEnd by "reason" {
        PerAddress => "per_address",
        Total => "total",
        TlsHandshake => "tls_handshake",
        FirstByte => "first_byte",
        WholeHeader => "whole_header",
        Idle => "idle",
        SlowBody => "slow_body",
        Flood => "flood",
        Malformed => "malformed",
        ShuttingDown => "shutting_down",
    }
}

impl From<Full> for ConnectionEnd {
    fn from(full: Full) -> Self {
        match full {
            Full::Address => Self::PerAddress,
            Full::Gateway => Self::Total,
        }
    }
}

labels! {
    /// Why a gateway forgot all it held and began again.
    FeedRestart by "reason" {
        /// It has just started.
        Begin => "begin",
        /// The store may have lost something.
        Epoch => "epoch",
        /// The log does not reach back to what was applied.
        Trimmed => "trimmed",
        /// The log leaves something out.
        Gap => "gap",
    }
}

labels! {
    /// How a change was answered.
    Awaited by "result" {
        /// Every gateway has it, or can admit nothing until it has.
        Everywhere => "everywhere",
        Pending => "pending",
    }
}

labels! {
    /// What went wrong with a vector service.
    UpstreamFailure by "reason" {
        Connect => "connect",
        ConnectTimeout => "connect_timeout",
        Tls => "tls",
        FirstByteTimeout => "first_byte_timeout",
        Reset => "reset",
        Malformed => "malformed",
    }
}

labels! {
    /// What a load of a key found.
    LoadResult by "result" {
        Hit => "hit",
        Unknown => "unknown",
        Failed => "failed",
    }
}

labels! {
    /// How reading on for a gone client ended.
    DrainEnd by "result" {
        Finished => "finished",
        Expired => "expired",
        /// Too many were read on already.
        NoRoom => "no_room",
    }
}

/// A call by its protocol and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub protocol: Protocol,
    pub outcome: CallOutcome,
}

impl Label for Call {
    const NAMES: &'static [&'static str] = &["protocol", "outcome"];

    fn all() -> Vec<Self> {
        let outcomes = |protocol: &Protocol| {
            let protocol = *protocol;
            CallOutcome::ALL.iter().map(move |outcome| Self { protocol, outcome: *outcome })
        };
        Protocol::ALL.iter().flat_map(outcomes).collect()
    }

    fn place(&self) -> usize {
        self.protocol as usize * CallOutcome::ALL.len() + self.outcome as usize
    }

    fn texts(&self) -> Vec<&'static str> {
        vec![self.protocol.name(), self.outcome.name()]
    }
}

impl Label for Denial {
    const NAMES: &'static [&'static str] = &["denial"];

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }

    fn place(&self) -> usize {
        let same = |other: &Self| mem::discriminant(self) == mem::discriminant(other);
        Self::ALL.iter().position(same).unwrap_or(usize::MAX)
    }

    fn texts(&self) -> Vec<&'static str> {
        vec![self.row().label]
    }
}
