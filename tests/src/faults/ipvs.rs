//! Virtual services by the thousand, as kube-proxy makes them on a big cluster: what IPVS has to
//! estimate.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{Guest, NetNs};

/// More would leave the ranges of addresses.
const MOST: u32 = 60_000;

/// `ipvsadm -R` opens a socket for each line; under emulation it makes some 800 in a second.
const LINES_A_SECOND: u32 = 100;

/// For starting, and for modules that are loaded.
const SPARE: Duration = Duration::from_secs(60);

const RULES: &str = "/tmp/services";

/// What is made; nothing answers at the addresses, which no interface has.
#[derive(Debug, Clone, Copy)]
pub struct Services {
    count: u32,
    /// Real servers of each.
    destinations: u32,
    family: Family,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// How many services and destinations the kernel lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub services: u32,
    pub destinations: u32,
}

impl Services {
    /// So many of IPv4 and TCP, each with one destination.
    pub const fn new(count: u32) -> Self {
        Self {
            count,
            destinations: 1,
            family: Family::V4,
            protocol: Protocol::Tcp,
        }
    }

    /// With so many real servers each.
    pub const fn destinations(self, destinations: u32) -> Self {
        Self {
            destinations,
            ..self
        }
    }

    pub const fn family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    pub const fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// Makes them in the guest's own namespace; loads ip_vs, if it is not there yet.
    pub fn add(&self, guest: &Guest) -> Result<()> {
        self.restore(guest, Command::new("sh"))
    }

    /// Makes them in a namespace of their own.
    pub fn add_in(&self, guest: &Guest, namespace: &NetNs) -> Result<()> {
        self.restore(guest, namespace.command("sh"))
    }

    fn restore(&self, guest: &Guest, mut shell: Command) -> Result<()> {
        ensure!(
            self.count <= MOST,
            "{} services are too many for the addresses that there are",
            self.count
        );
        fs::write(RULES, self.rules()).with_context(|| format!("write {RULES}"))?;
        // Its first question to the kernel would load it, too, but goes unanswered.
        guest.modprobe("ip_vs")?;
        shell.args(["-c", &format!("exec ipvsadm --restore < {RULES}")]);
        let lines = self.count * (1 + self.destinations);
        let limit = Duration::from_secs(u64::from(lines / LINES_A_SECOND)) + SPARE;
        guest.run(&mut shell, limit)?.ok().map(drop)
    }

    /// What `ipvsadm --restore` reads.
    fn rules(&self) -> String {
        let mut rules = String::new();
        for number in 1..=self.count {
            let service = self.service(number);
            // Writing to a String cannot fail.
            let _ = writeln!(rules, "-A {service} -s rr");
            for server in 1..=self.destinations {
                let destination = self.destination(number, server);
                let _ = writeln!(rules, "-a {service} -r {destination} -m -w 1");
            }
        }
        rules
    }

    fn service(&self, number: u32) -> String {
        let option = match self.protocol {
            Protocol::Tcp => "-t",
            Protocol::Udp => "-u",
            Protocol::Sctp => "--sctp-service",
        };
        let address = match self.family {
            Family::V4 => v4([10, 96], number),
            Family::V6 => v6(0xfd00_0096, number),
        };
        format!("{option} {}", at(address, 80))
    }

    /// The servers of a service differ in their ports.
    fn destination(&self, number: u32, server: u32) -> String {
        let address = match self.family {
            Family::V4 => v4([10, 97], number),
            Family::V6 => v6(0xfd00_0097, number),
        };
        at(address, 8_000 + server)
    }
}

/// Takes all services of the guest's own namespace away.
pub fn clear(guest: &Guest) -> Result<()> {
    guest.sh("ipvsadm --clear").map(drop)
}

/// What is there in the guest's own namespace.
pub fn listed(guest: &Guest) -> Result<Listed> {
    Ok(Listed::parse(&guest.sh("cat /proc/net/ip_vs")?))
}

/// What is there in another namespace.
pub fn listed_in(namespace: &NetNs) -> Result<Listed> {
    Ok(Listed::parse(&namespace.sh("cat /proc/net/ip_vs")?))
}

impl Listed {
    /// Services begin with their protocols, destinations with an arrow; so does one line of the
    /// heading.
    fn parse(table: &str) -> Self {
        let mut listed = Self {
            services: 0,
            destinations: 0,
        };
        for line in table.lines() {
            match line.split_whitespace().next() {
                Some("TCP" | "UDP" | "SCTP" | "FWM") => listed.services += 1,
                Some("->") if !line.contains("RemoteAddress") => listed.destinations += 1,
                _ => {}
            }
        }
        listed
    }
}

fn v4(network: [u8; 2], number: u32) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    Ipv4Addr::new(network[0], network[1], high, low).into()
}

fn v6(network: u32, number: u32) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(network) << 96 | u128::from(number)).into()
}

fn at(address: IpAddr, port: u32) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_an_address_of_its_own() {
        let rules = Services::new(300).destinations(2).rules();
        assert_eq!(rules.lines().count(), 900);
        let last = rules.lines().rev().take(3).collect::<Vec<_>>();
        assert_eq!(
            last,
            [
                "-a -t 10.96.1.44:80 -r 10.97.1.44:8002 -m -w 1",
                "-a -t 10.96.1.44:80 -r 10.97.1.44:8001 -m -w 1",
                "-A -t 10.96.1.44:80 -s rr",
            ]
        );
    }

    #[test]
    fn the_address_of_a_v6_service_is_in_brackets() {
        let services = Services::new(1).family(Family::V6).protocol(Protocol::Udp);
        let wanted = "-A -u [fd00:96::1]:80 -s rr\n\
                      -a -u [fd00:96::1]:80 -r [fd00:97::1]:8001 -m -w 1\n";
        assert_eq!(services.rules(), wanted);
    }

    #[test]
    fn the_kernels_list_is_counted() {
        let table = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n  \
              -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            TCP  0A600001:0050 rr  \n  \
              -> 0A610001:1F41      Masq    1      0          0         \n";
        let wanted = Listed {
            services: 1,
            destinations: 1,
        };
        assert_eq!(Listed::parse(table), wanted);
    }
}
