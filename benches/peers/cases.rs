//! What is compared: loads, who carries them, and what the figures should be at most.

use crate::flood::Flood;
use crate::load::{Ask, Pace, Wire};
use crate::proxies::Who;
use crate::upstream::Size;

/// One comparison.
pub struct Case {
    pub name: &'static str,
    pub what: &'static str,
    pub wire: Wire,
    pub pace: Pace,
    /// The first is the gateway as it is; the others are compared with it.
    pub contenders: Vec<Contender>,
}

/// Who carries the load of a case, and how.
pub struct Contender {
    pub who: Who,
    /// What tells it from another of the same name.
    pub manner: &'static str,
    pub ask: Ask,
    /// Keys deleted per second meanwhile, by the gateway, whoever carries the load.
    pub deletes: u32,
    /// What floods it meanwhile.
    pub flood: Option<Flood>,
    /// What the gateway's figure, divided by this one's, should be at most.
    pub gate: Option<f64>,
}

/// What is compared in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// CPU per call.
    Cpu,
    /// What 99 of 100 calls did not exceed.
    P99,
}

/// Of the case `revocation`.
pub const DELETES_PER_SECOND: u32 = 100;

/// The least that can be asked for.
pub const SMALL: Ask = Ask { size: Size::Small, has_units: true, wrong: 0 };
const KEPT: Wire = Wire::Http { connections: 32, fresh: false, tls: false };
const FRESH: Wire = Wire::Http { connections: 32, fresh: true, tls: false };
const FRESH_TLS: Wire = Wire::Http { connections: 32, fresh: true, tls: true };
const FEW: Wire = Wire::Http { connections: 4, fresh: false, tls: false };
const STEADY: Pace = Pace::PerSecond(5000);
/// Few enough to be kept up with while a flood takes the rest of the machine.
const BESIDE_A_FLOOD: Pace = Pace::PerSecond(2000);

impl Case {
    pub fn figure(&self) -> Figure {
        if self.pace == Pace::AtOnce { Figure::Cpu } else { Figure::P99 }
    }
}

impl Contender {
    fn new(who: Who, ask: Ask, gate: Option<f64>) -> Self {
        Self { who, manner: "", ask, deletes: 0, flood: None, gate }
    }

    pub fn label(&self) -> String {
        if self.manner.is_empty() {
            self.who.name().to_owned()
        } else {
            format!("{}, {}", self.who.name(), self.manner)
        }
    }
}

pub fn all() -> Vec<Case> {
    let ask = |size| Ask { size, ..SMALL };
    let wrong = |wrong| Ask { wrong, ..SMALL };
    vec![
        case("keepalive", "POST of 60 bytes, 32 connections that stay", KEPT, against(SMALL, [0.90, 0.80, 1.15, 0.35])),
        case("connect", "a new connection for each call, 32 at once", FRESH, against(SMALL, [1.1, NO, NO, NO])),
        case("connect-tls", "the same under TLS 1.3, whole handshakes", FRESH_TLS, against(SMALL, [1.2, NO, NO, NO])),
        case(
            "grpc-8x16",
            "unary calls, 8 connections with 16 streams each",
            grpc(8, 16),
            against(SMALL, [0.95, NO, 0.55, 0.30]),
        ),
        case("grpc-64x1", "unary calls, 64 connections with one stream each", grpc(64, 1), against(SMALL, NONE)),
        case("answers-100k", "answers of 100 KB", KEPT, reading(ask(Size::K100), Some(1.10))),
        case("answers-10m", "answers of 10 MB, 4 connections", FEW, reading(ask(Size::M10), None)),
        case("bad-1", "1 % of the calls with a wrong key", KEPT, against(wrong(1), NONE)),
        case("bad-50", "50 % of the calls with a wrong key", KEPT, against(wrong(50), NONE)),
        case("metering", "keep-alive, beside a forwarder that does nothing else", KEPT, metering()),
        Case { pace: STEADY, ..case("fixed-5000", "5 000 calls per second, each at its time", KEPT, steady(0)) },
        Case {
            pace: STEADY,
            ..case("revocation", "the same, while 100 keys per second are deleted", KEPT, steady(DELETES_PER_SECOND))
        },
        Case {
            pace: BESIDE_A_FLOOD,
            ..case("flood", "2 000 calls per second, each at its time, beside a flood", KEPT, flooded())
        },
    ]
}

/// No gate.
const NO: f64 = f64::INFINITY;
const NONE: [f64; 4] = [NO; 4];

fn case(name: &'static str, what: &'static str, wire: Wire, contenders: Vec<Contender>) -> Case {
    Case { name, what, wire, pace: Pace::AtOnce, contenders }
}

fn grpc(connections: usize, streams: usize) -> Wire {
    Wire::Grpc { connections, streams }
}

const OTHERS: [Who; 4] = [Who::Haproxy, Who::NginxLua, Who::NginxStatic, Who::Envoy];

/// The gateway and all proxies.
fn against(ask: Ask, gates: [f64; 4]) -> Vec<Contender> {
    let others = OTHERS.into_iter().zip(gates);
    let others = others.map(|(who, gate)| Contender::new(who, ask, Some(gate).filter(|gate| gate.is_finite())));
    [Contender::new(Who::Ours, ask, None)].into_iter().chain(others).collect()
}

/// Besides, the gateway on an operation whose answers it does not read for units.
fn reading(ask: Ask, gate: Option<f64>) -> Vec<Contender> {
    let unread = Contender { manner: "not read", ..Contender::new(Who::Ours, Ask { has_units: false, ..ask }, gate) };
    let mut contenders = against(ask, NONE);
    contenders.insert(1, unread);
    contenders
}

/// There is no switch for metering; the forwarder does not check keys either, and has no deadlines and limits.
fn metering() -> Vec<Contender> {
    vec![Contender::new(Who::Ours, SMALL, None), Contender::new(Who::Bare, SMALL, Some(1.12))]
}

/// At a fixed rate, with the driver alone for what of it is its own. HAProxy has no deletes like ours, so it is also measured while the gateway
/// makes them beside it, which takes no calls then: what they cost the machine is the same.
fn steady(deletes: u32) -> Vec<Contender> {
    let gate = 1.1;
    let mut contenders = against(SMALL, if deletes > 0 { NONE } else { [gate, NO, NO, NO] });
    if deletes > 0 {
        let deleting = |who, manner, gate| Contender { manner, deletes, ..Contender::new(who, SMALL, gate) };
        contenders[0] = deleting(Who::Ours, "deleting", None);
        contenders.insert(1, Contender { manner: "nothing deleted", ..Contender::new(Who::Ours, SMALL, None) });
        contenders.insert(2, deleting(Who::Haproxy, "deletes beside it", Some(gate)));
    }
    contenders.push(Contender::new(Who::Direct, SMALL, None));
    contenders
}

/// A flood of bad keys is to leave others as they are without it. Where it is not held back, driver, service and gateway share what the
/// machine has, so whatever floods slows others down; a flood of good keys shows by how much, and so does HAProxy.
fn flooded() -> Vec<Contender> {
    let ours = |gate| Contender::new(Who::Ours, SMALL, gate);
    let by = |flood: Flood, gate| Contender { manner: flood.name(), flood: Some(flood), ..ours(gate) };
    vec![
        by(Flood::Unknown, None),
        Contender { manner: "no flood", ..ours(Some(1.2)) },
        by(Flood::Malformed, None),
        by(Flood::Insider, None),
        by(Flood::Good, None),
        Contender { who: Who::Haproxy, ..by(Flood::Unknown, None) },
        Contender { who: Who::Haproxy, manner: "no flood", ..ours(None) },
    ]
}
