//! Allow-lists: from which addresses a cluster may be called.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::verdict::Denial;

/// Whether an allow-list lets an address in. An empty list lets everybody in.
pub fn allowed(address: IpAddr, allow_ips: &[IpNet]) -> Result<(), Denial> {
    let open = allow_ips.is_empty() || contains(allow_ips, address.to_canonical());
    if open { Ok(()) } else { Err(Denial::AddressNotAllowed) }
}

/// Whether one of the networks contains an address in its canonical form.
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| match (network, address) {
        // A network of IPv4 addresses in IPv6 form: ::ffff:0:0/96 and smaller.
        (IpNet::V6(mapped), IpAddr::V4(v4)) if mapped.prefix_len() >= 96 => mapped.contains(&v4.to_ipv6_mapped()),
        _ => network.contains(&address),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_allow_list_lets_in_whom_it_contains() {
        assert_eq!(allowed(ip("1.2.3.4"), &[]), Ok(()));
        assert_eq!(allowed(ip("1.2.3.4"), &nets(&["1.2.3.0/24"])), Ok(()));
        assert_eq!(allowed(ip("::ffff:1.2.3.4"), &nets(&["1.2.3.0/24"])), Ok(()));
        assert_eq!(allowed(ip("1.2.3.4"), &nets(&["::ffff:1.2.3.0/120"])), Ok(()));
        for list in [&["1.2.4.0/24"][..], &["::/0"], &["127.0.0.1/32"]] {
            assert_eq!(allowed(ip("1.2.3.4"), &nets(list)), Err(Denial::AddressNotAllowed), "{list:?}");
        }
    }
}
