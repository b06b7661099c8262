//! Addresses as the probes write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of this family; IPv4 takes the first 4 bytes.
pub(super) fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if i32::from(family) == libc::AF_INET6 {
        return Ipv6Addr::from(bytes).into();
    }
    let [a, b, c, d, ..] = bytes;
    Ipv4Addr::new(a, b, c, d).into()
}
