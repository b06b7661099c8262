//! Who is at the other end of a connection, as far as shares of a limit go.

use std::net::{IpAddr, Ipv6Addr};

/// A host, or for IPv6 the network of a host: one that has an address of a /64 mostly has all of
/// them (RFC 4291, 2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl Peer {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Ipv6Addr::from_bits(network).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_are_one_peer() {
        let same = |a: &str, b: &str| Peer::of(a.parse().unwrap()) == Peer::of(b.parse().unwrap());
        for (a, b) in [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8::1", "2001:db8::2:3"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("192.0.2.1", "192.0.2.2"),
            ("127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "::1"),
            ("2001:db8:0:1::1", "2001:db8:0:2::1"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
