//! Where a call came from, for allow-lists and the log.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::auth::allow::contains;
use crate::gateway::fields::{Fields, Name};

/// The address of the client: the peer's own, or, where the peer is a trusted proxy, the right-most address in
/// `X-Forwarded-For` that is not one. Everything further left was written by somebody we do not know. Read it before
/// the headers are cleaned.
///
/// An entry that is no address ends the search at the proxy that passed it on. An IPv4 address in IPv6 form is an
/// IPv4 address.
pub fn client_address(peer: IpAddr, fields: &Fields, trusted: &[IpNet]) -> IpAddr {
    let mut address = peer.to_canonical();
    if !contains(trusted, address) {
        return address;
    }
    let values = fields.all(Name::ForwardedFor).rev();
    let mut hops = values.flat_map(|value| value.rsplit(|byte| *byte == b','));
    while contains(trusted, address) {
        match hops.next().and_then(|hop| parse(str::from_utf8(hop).ok()?.trim())) {
            Some(hop) => address = hop,
            None => break,
        }
    }
    address
}

/// With or without a port, in brackets or without.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
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

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let fields: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
        client_address(ip(peer), &Fields::from(&fields[..]), &nets(trusted)).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("9.9.9.9", &["1.1.1.1"], &[]), "9.9.9.9");
        assert_eq!(client("9.9.9.9", &["1.1.1.1"], &["10.0.0.0/8"]), "9.9.9.9");
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_is_the_client() {
        let trusted = &["10.0.0.0/8", "fd00::/8"];
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1"], trusted), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.1.1.1, 10.0.0.2"], trusted), "1.1.1.1");
        assert_eq!(client("::ffff:10.0.0.1", &["6.6.6.6,::ffff:1.1.1.1,[fd00::1]:80"], trusted), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:5000"], trusted), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1:80"], trusted), "1.1.1.1");
    }

    #[test]
    fn without_a_usable_entry_the_last_known_hop_is_the_client() {
        let trusted = &["10.0.0.0/8"];
        for forwarded in [&[][..], &[""], &["unknown"], &["1.1.1.1, "], &["1.1.1.1, _hidden"]] {
            assert_eq!(client("10.0.0.1", forwarded, trusted), "10.0.0.1", "{forwarded:?}");
        }
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], trusted), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, x, 10.0.0.2"], trusted), "10.0.0.2");
    }

    #[test]
    fn bytes_that_are_no_text_hide_nothing_to_their_right() {
        let mut fields = Fields::default();
        fields.add(b"x-forwarded-for", b"\xff, 1.2.3.4");
        assert_eq!(client_address(ip("10.0.0.1"), &fields, &nets(&["10.0.0.0/8"])), ip("1.2.3.4"));
    }
}
