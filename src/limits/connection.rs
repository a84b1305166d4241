//! Connections: how many in all, and how many from one address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ipnet::IpNet;

/// Counts open connections. Clones share the count.
#[derive(Clone, Debug)]
pub struct ConnectionCaps(Arc<Counts>);

/// One counted connection, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it says that the connection is closed"]
pub struct ConnectionPermit {
    counts: Arc<Counts>,
    /// Absent for a proxy that brings connections of many clients.
    address: Option<IpAddr>,
}

/// Which cap is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Address,
    Gateway,
}

#[derive(Debug)]
struct Counts {
    per_address: usize,
    most: usize,
    exempt: Vec<IpNet>,
    open: AtomicUsize,
    /// Addresses with at least one connection, so there are never more of them than connections.
    by_address: DashMap<IpAddr, usize>,
}

impl ConnectionCaps {
    /// `most` is the cap in all. The cap per address does not hold for `exempt`: trusted proxies stand for many
    /// clients.
    pub fn new(per_address: usize, most: usize, exempt: Vec<IpNet>) -> Self {
        Self(Arc::new(Counts { per_address, most, exempt, open: AtomicUsize::new(0), by_address: DashMap::new() }))
    }

    /// Counts a new connection from this peer. IPv6 counts per /64, since whoever has one address of it has them all.
    pub fn open(&self, peer: IpAddr) -> Result<ConnectionPermit, Full> {
        let counts = &self.0;
        let one_more = |open: usize| (open < counts.most).then_some(open + 1);
        counts.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).map_err(|_| Full::Gateway)?;
        let peer = peer.to_canonical();
        let address = (!counts.exempt.iter().any(|proxies| proxies.contains(&peer))).then(|| network_of(peer));
        if address.is_none_or(|address| counts.take(address)) {
            return Ok(ConnectionPermit { counts: Arc::clone(counts), address });
        }
        counts.open.fetch_sub(1, Ordering::Relaxed);
        Err(Full::Address)
    }

    /// Connections open now.
    pub fn opened(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.counts.give_back(address);
        }
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counts {
    fn take(&self, address: IpAddr) -> bool {
        match self.by_address.entry(address) {
            Entry::Occupied(mut known) if *known.get() < self.per_address => {
                *known.get_mut() += 1;
                true
            }
            Entry::Vacant(new) if self.per_address > 0 => {
                new.insert(1);
                true
            }
            Entry::Occupied(_) | Entry::Vacant(_) => false,
        }
    }

    fn give_back(&self, address: IpAddr) {
        let Entry::Occupied(mut known) = self.by_address.entry(address) else { return };
        if *known.get() > 1 {
            *known.get_mut() -= 1;
        } else {
            known.remove();
        }
    }
}

/// What counts as one address.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !(u64::MAX as u128);
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_own_cap_and_gets_back_what_it_closes() {
        let caps = ConnectionCaps::new(2, 100, vec![]);
        let (one, two) = (caps.open(ip("1.1.1.1")).unwrap(), caps.open(ip("::ffff:1.1.1.1")).unwrap());
        assert_eq!(caps.open(ip("1.1.1.1")).unwrap_err(), Full::Address);
        let other = caps.open(ip("1.1.1.2")).unwrap();
        assert_eq!(caps.opened(), 3);
        drop(one);
        let three = caps.open(ip("1.1.1.1")).unwrap();
        assert!(caps.open(ip("1.1.1.1")).is_err());
        drop((two, three, other));
        assert_eq!((caps.opened(), caps.0.by_address.len()), (0, 0));
    }

    #[test]
    fn ipv6_counts_per_64() {
        let caps = ConnectionCaps::new(1, 100, vec![]);
        let _one = caps.open(ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(caps.open(ip("2001:db8:0:1:ffff::2")).unwrap_err(), Full::Address);
        assert!(caps.open(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn the_gateway_has_a_cap_in_all() {
        let caps = ConnectionCaps::new(10, 2, vec![]);
        let _held = [caps.open(ip("1.1.1.1")).unwrap(), caps.open(ip("1.1.1.2")).unwrap()];
        assert_eq!(caps.open(ip("1.1.1.3")).unwrap_err(), Full::Gateway);
        assert_eq!(caps.opened(), 2);
    }

    #[test]
    fn a_trusted_proxy_is_not_held_to_the_cap_of_one_client() {
        let caps = ConnectionCaps::new(1, 3, vec!["10.0.0.0/8".parse().unwrap()]);
        let held: Vec<_> = (0..3).map(|_| caps.open(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(caps.open(ip("10.0.0.1")).unwrap_err(), Full::Gateway);
        drop(held);
        assert_eq!(caps.opened(), 0);
    }
}
