//! TCP ports of the loopback for programs that are started later.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, setsockopt, socket, sockopt,
};

/// A TCP port of this machine's loopback. As long as this is kept, nobody gets it who asks the
/// kernel for any free port.
///
/// It is bound, but not listened on, and with SO_REUSEADDR. The kernel then still lets a program
/// listen there that asks for it by number with SO_REUSEADDR, as QEMU and the libraries of Go and
/// Rust do (`inet_csk_bind_conflict` in net/ipv4/inet_connection_sock.c).
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _kept: OwnedFd,
}

impl Port {
    /// # Errors
    /// If the kernel has none left.
    pub fn reserve() -> Result<Self> {
        Self::bound().context("reserve a port of the loopback")
    }

    fn bound() -> Result<Self> {
        let kind = SockType::Stream;
        let kept = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&kept, sockopt::ReuseAddr, &true)?;
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        bind(kept.as_raw_fd(), &SockaddrIn::from(any))?;
        let bound: SockaddrIn = getsockname(kept.as_raw_fd())?;
        let address = SocketAddrV4::from(bound).into();
        Ok(Self {
            address,
            _kept: kept,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_reserved_port_is_no_one_elses_and_can_be_listened_on() {
        let ports: Vec<_> = (0..200).map(|_| Port::reserve().unwrap()).collect();
        let numbers: BTreeSet<_> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        for _ in 0..200 {
            let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let other = other.local_addr().unwrap().port();
            assert!(!numbers.contains(&other), "{other} was reserved");
        }
        for port in &ports {
            TcpListener::bind(port.address()).unwrap();
        }
    }
}
