//! Layouts of IPVS's structures that were recorded, for kernels whose modules have no
//! types of their own, and the check of one against the running module.
//!
//! A layout was taken from Debian's headers of the series with the compiler's own
//! `offsetof`. A release or a configuration may lay out differently, so that none is
//! used before the arguments of real calls were found again in the connections that they
//! made, and the settings where they are said to lie.

use ebpf::ipvs_conn_reuse::{Offsets, Specimen, SpecimenOffsets};

use super::support::{INUM, SKB_DATA};
use crate::{
    kernel::{KernelFacts, bpf},
    model::Missing,
};

/// Jiffies that a new connection may idle: `cp->timeout = 3*HZ` (`ip_vs_conn_new`,
/// ip_vs_conn.c), seconds.
const FIRST_TIMEOUT: u64 = 3;

const CONN_F_NFCT: u32 = 1 << 16;
const AVAILABLE: u32 = 1;

/// A recorded layout.
#[derive(Debug)]
pub struct Layout {
    /// How the releases of the series begin.
    series: &'static str,
    /// Of the machine.
    machine: &'static str,
    /// Those of the module; the others are known from the kernel's own types.
    offsets: Offsets,
    /// Where the rest of a specimen lies.
    pub specimen: SpecimenOffsets,
    parameters: Parameters,
    dest: Dest,
    /// `ip_vs_conn.timeout`, 64 bits.
    timeout: u32,
    /// Sysctls below `net.ipv4.vs.` with their places in `netns_ipvs`, 32 bits each.
    pub settings: &'static [(&'static str, u32)],
}

/// Members of `struct ip_vs_conn_param`.
#[derive(Debug)]
struct Parameters {
    client_port: u32,
    virtual_port: u32,
    protocol: u32,
    family: u32,
}

/// Members of `struct ip_vs_dest`, before and behind those that are used.
#[derive(Debug)]
struct Dest {
    family: u32,
    port: u32,
    address: u32,
    protocol: u32,
    virtual_port: u32,
    virtual_address: u32,
}

static LAYOUTS: [Layout; 1] = [Layout {
    series: "5.10.",
    machine: "x86_64",
    offsets: Offsets {
        family: 22,
        destination_family: 78,
        protocol: 76,
        client: 24,
        client_port: 16,
        virtual_address: 40,
        virtual_port: 20,
        destination: 56,
        destination_port: 18,
        flags: 72,
        state: 148,
        dest: 184,
        ipvs: 80,
        dest_weight: 60,
        dest_available: 52,
        ipvs_net: 2160,
        conntrack: 1788,
        conn_reuse_mode: 1868,
        expire_nodest_conn: 1824,
        expire_quiescent_template: 1836,
        service_ipvs: 80,
        wanted_weight: 24,
        header_flags: 0,
        header_length: 8,
        header_protocol: 14,
        // Not of the module.
        net_inum: 0,
        skb_data: 0,
    },
    specimen: SpecimenOffsets {
        ipvs: 0,
        client: 8,
        virtual_address: 16,
        settings: 1760,
    },
    parameters: Parameters {
        client_port: 24,
        virtual_port: 26,
        protocol: 28,
        family: 30,
    },
    dest: Dest {
        family: 32,
        port: 34,
        address: 36,
        protocol: 400,
        virtual_port: 402,
        virtual_address: 404,
    },
    timeout: 136,
    settings: &[
        ("amemthresh", 1768),
        ("am_droprate", 1772),
        ("conntrack", 1788),
        ("snat_reroute", 1792),
        ("sync_ports", 1800),
        ("expire_nodest_conn", 1824),
        ("expire_quiescent_template", 1836),
        ("nat_icmp_send", 1856),
        ("pmtu_disc", 1860),
        ("conn_reuse_mode", 1868),
    ],
}];

/// The layout of a kernel's series. Its version only chooses what is to be checked.
pub(super) fn of(facts: &KernelFacts) -> Option<&'static Layout> {
    LAYOUTS
        .iter()
        .find(|layout| facts.release.starts_with(layout.series) && facts.machine == layout.machine)
}

impl Layout {
    /// All offsets, with those of the kernel's own types.
    pub(super) fn offsets(&self, facts: &KernelFacts) -> Result<Offsets, Missing> {
        Ok(Offsets {
            net_inum: bpf::offset(facts, INUM, 4)?,
            skb_data: bpf::offset(facts, SKB_DATA, 8)?,
            ..self.offsets
        })
    }

    /// The series that it is of, for people.
    pub(super) fn series(&self) -> &'static str {
        self.series.trim_end_matches('.')
    }

    /// The members that a specimen does not have where the layout says, none if it is
    /// right. `settings` are the values of [`Layout::settings`] in its namespace.
    pub(super) fn disagreements(
        &self,
        specimen: &Specimen,
        settings: &[Option<u64>],
        hz: Option<u32>,
    ) -> Vec<String> {
        let connection = self.connection(specimen, hz);
        let wrong = connection
            .into_iter()
            .chain(self.dest(specimen))
            .filter(|(_, agrees)| !agrees);
        let settings = self
            .settings
            .iter()
            .zip(settings)
            .filter(|((_, at), value)| {
                let at = at.checked_sub(self.specimen.settings);
                let found = at.and_then(|at| number(&specimen.settings, at, 4));
                value.is_some() && found != **value
            });
        wrong
            .map(|(member, _)| member.to_owned())
            .chain(settings.map(|((name, _), _)| format!("netns_ipvs.sysctl_{name}")))
            .collect()
    }

    fn connection(&self, specimen: &Specimen, hz: Option<u32>) -> Vec<(&'static str, bool)> {
        let Offsets {
            family,
            destination_family,
            protocol,
            client,
            client_port,
            virtual_address,
            virtual_port,
            destination,
            destination_port,
            flags,
            state,
            dest,
            ipvs,
            ..
        } = self.offsets;
        let number = |at, size| number(&specimen.connection, at, size);
        let parameter = |at, size| self::number(&specimen.parameters, at, size);
        let is_v6 = parameter(self.parameters.family, 2) == Some(libc::AF_INET6 as u64);
        let is_to_v6 = specimen.destination_family == libc::AF_INET6 as u32;
        let same = |at, address: &[u8; 16], is_v6| same(&specimen.connection, at, address, is_v6);
        let timeout = hz.map(|hz| FIRST_TIMEOUT * u64::from(hz));
        let set = number(flags, 4).unwrap_or(0) as u32;
        vec![
            (
                "ip_vs_conn.af",
                number(family, 2) == parameter(self.parameters.family, 2),
            ),
            (
                "ip_vs_conn.daf",
                number(destination_family, 2) == Some(specimen.destination_family.into()),
            ),
            (
                "ip_vs_conn.protocol",
                number(protocol, 2) == parameter(self.parameters.protocol, 2),
            ),
            ("ip_vs_conn.caddr", same(client, &specimen.client, is_v6)),
            (
                "ip_vs_conn.cport",
                number(client_port, 2) == parameter(self.parameters.client_port, 2),
            ),
            (
                "ip_vs_conn.vaddr",
                same(virtual_address, &specimen.virtual_address, is_v6),
            ),
            (
                "ip_vs_conn.vport",
                number(virtual_port, 2) == parameter(self.parameters.virtual_port, 2),
            ),
            (
                "ip_vs_conn.daddr",
                same(destination, &specimen.destination, is_to_v6),
            ),
            (
                "ip_vs_conn.dport",
                number(destination_port, 2) == Some(u64::from(specimen.destination_port)),
            ),
            (
                "ip_vs_conn.flags",
                set & specimen.flags == specimen.flags && self.marks(set, specimen),
            ),
            ("ip_vs_conn.state", number(state, 2) == Some(0)),
            (
                "ip_vs_conn.dest",
                number(dest, 8) == Some(specimen.dest_pointer),
            ),
            (
                "ip_vs_conn.ipvs",
                number(ipvs, 8) == parameter(self.specimen.ipvs, 8),
            ),
            (
                "ip_vs_conn.timeout",
                timeout.is_none() || number(self.timeout, 8) == timeout,
            ),
        ]
    }

    /// Whether the mark of a connection that conntrack keeps is there as the setting says.
    fn marks(&self, flags: u32, specimen: &Specimen) -> bool {
        let at = self.offsets.conntrack - self.specimen.settings;
        let conntrack = number(&specimen.settings, at, 4);
        conntrack == Some(u64::from(flags & CONN_F_NFCT != 0))
    }

    /// Whether a destination names the connection's service. One of a firewall mark names
    /// none, and one of all ports has port 0.
    fn is_of_service(&self, specimen: &Specimen) -> bool {
        let family = number(&specimen.parameters, self.parameters.family, 2);
        let is_v6 = family == Some(libc::AF_INET6 as u64);
        let at = self.dest.virtual_address;
        let port = number(&specimen.dest, self.dest.virtual_port, 2);
        let virtual_port = number(&specimen.parameters, self.parameters.virtual_port, 2);
        let is_named = same(&specimen.dest, at, &specimen.virtual_address, is_v6);
        match port {
            Some(0) => is_named || same(&specimen.dest, at, &[0; 16], is_v6),
            port => is_named && port == virtual_port,
        }
    }

    fn dest(&self, specimen: &Specimen) -> Vec<(&'static str, bool)> {
        let number = |at, size| number(&specimen.dest, at, size);
        let is_v6 = specimen.destination_family == libc::AF_INET6 as u32;
        let flags = number(self.offsets.dest_available, 4).unwrap_or(0) as u32;
        let parameter = |at, size| self::number(&specimen.parameters, at, size);
        vec![
            (
                "ip_vs_dest.af",
                number(self.dest.family, 2) == Some(specimen.destination_family.into()),
            ),
            (
                "ip_vs_dest.addr",
                same(
                    &specimen.dest,
                    self.dest.address,
                    &specimen.destination,
                    is_v6,
                ),
            ),
            // A destination without a port of its own takes the service's.
            (
                "ip_vs_dest.port",
                [0, u64::from(specimen.destination_port)]
                    .map(Some)
                    .contains(&number(self.dest.port, 2)),
            ),
            ("ip_vs_dest.flags", flags & AVAILABLE != 0),
            // The scheduler gives nothing to one of weight 0.
            (
                "ip_vs_dest.weight",
                number(self.offsets.dest_weight, 4)
                    .is_some_and(|weight| (1..=0x7fff_ffff).contains(&weight)),
            ),
            (
                "ip_vs_dest.protocol",
                number(self.dest.protocol, 2) == parameter(self.parameters.protocol, 2),
            ),
            ("ip_vs_dest.vport", self.is_of_service(specimen)),
        ]
    }
}

/// A number of `size` bytes; `None` outside of what was copied.
fn number(bytes: &[u8], at: u32, size: usize) -> Option<u64> {
    let at = at as usize;
    let found = bytes.get(at..at + size)?;
    let mut wide = [0; 8];
    wide[..size].copy_from_slice(found);
    Some(u64::from_le_bytes(wide))
}

/// Whether an address lies there. Of IPv4 the first 4 bytes count.
fn same(bytes: &[u8], at: u32, address: &[u8; 16], is_v6: bool) -> bool {
    let length = if is_v6 { 16 } else { 4 };
    let at = at as usize;
    bytes.get(at..at + length) == Some(&address[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u32 = 250;
    const SETTINGS: [u64; 10] = [1_024, 10, 1, 1, 1, 1, 1, 0, 1, 1];

    fn layout() -> &'static Layout {
        &LAYOUTS[0]
    }

    fn put(bytes: &mut [u8], at: u32, value: &[u8]) {
        let at = at as usize;
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// What the probe takes of a connection of 10.1.0.2:20000 to 10.96.0.1:80 that goes
    /// to 10.3.0.2:7000.
    fn specimen() -> Specimen {
        let layout = layout();
        let address = |last: [u8; 4]| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&last);
            address
        };
        let mut specimen = Specimen {
            dest_pointer: 0xffff_8880_1234_5000,
            destination_family: libc::AF_INET as u32,
            destination_port: 7_000_u16.to_be().into(),
            flags: 0x100,
            netns: 4_026_531_840,
            destination: address([10, 3, 0, 2]),
            client: address([10, 1, 0, 2]),
            virtual_address: address([10, 96, 0, 1]),
            parameters: [0; 32],
            connection: [0; 192],
            dest: [0; 432],
            settings: [0; 128],
        };
        let ipvs = 0xffff_8880_9999_0000_u64.to_le_bytes();
        let (client_port, virtual_port) = (20_000_u16.to_be_bytes(), 80_u16.to_be_bytes());
        let (tcp, inet, port) = (
            6_u16.to_le_bytes(),
            2_u16.to_le_bytes(),
            7_000_u16.to_be_bytes(),
        );
        let parameters = &mut specimen.parameters;
        put(parameters, layout.specimen.ipvs, &ipvs);
        put(parameters, layout.parameters.client_port, &client_port);
        put(parameters, layout.parameters.virtual_port, &virtual_port);
        put(parameters, layout.parameters.protocol, &tcp);
        put(parameters, layout.parameters.family, &inet);
        let (connection, at) = (&mut specimen.connection, &layout.offsets);
        put(connection, at.family, &inet);
        put(connection, at.destination_family, &inet);
        put(connection, at.protocol, &tcp);
        put(connection, at.client, &specimen.client);
        put(connection, at.client_port, &client_port);
        put(connection, at.virtual_address, &specimen.virtual_address);
        put(connection, at.virtual_port, &virtual_port);
        put(connection, at.destination, &specimen.destination);
        put(connection, at.destination_port, &port);
        put(connection, at.flags, &(CONN_F_NFCT | 0x100).to_le_bytes());
        put(connection, at.dest, &specimen.dest_pointer.to_le_bytes());
        put(connection, at.ipvs, &ipvs);
        put(
            connection,
            layout.timeout,
            &(FIRST_TIMEOUT * u64::from(HZ)).to_le_bytes(),
        );
        let dest = &mut specimen.dest;
        put(dest, layout.dest.family, &inet);
        put(dest, layout.dest.port, &port);
        put(dest, layout.dest.address, &specimen.destination);
        put(dest, layout.dest.protocol, &tcp);
        put(dest, layout.dest.virtual_port, &virtual_port);
        put(dest, layout.dest.virtual_address, &specimen.virtual_address);
        put(dest, at.dest_available, &AVAILABLE.to_le_bytes());
        put(dest, at.dest_weight, &1_u32.to_le_bytes());
        for ((_, at), value) in layout.settings.iter().zip(SETTINGS) {
            let at = at - layout.specimen.settings;
            put(&mut specimen.settings, at, &(value as u32).to_le_bytes());
        }
        specimen
    }

    fn wrong(specimen: &Specimen) -> Vec<String> {
        layout().disagreements(specimen, &SETTINGS.map(Some), Some(HZ))
    }

    #[test]
    fn a_specimen_of_the_layout_agrees() {
        assert_eq!(wrong(&specimen()), [""; 0]);
    }

    /// As where a member was put in before it.
    #[test]
    fn whatever_has_moved_is_named() {
        let mut moved = specimen();
        moved.connection.copy_within(..184, 8);
        let named = wrong(&moved);
        for member in [
            "caddr", "cport", "vaddr", "daddr", "dport", "ipvs", "dest", "timeout",
        ] {
            let member = format!("ip_vs_conn.{member}");
            assert!(named.contains(&member), "{member} is not among {named:?}");
        }
        let mut moved = specimen();
        moved.dest.copy_within(..424, 8);
        let named = wrong(&moved);
        // Ports may be 0, and so they are here.
        for member in ["af", "addr", "protocol"] {
            let member = format!("ip_vs_dest.{member}");
            assert!(named.contains(&member), "{member} is not among {named:?}");
        }
        let mut moved = specimen();
        moved.settings.copy_within(..120, 4);
        let named = wrong(&moved);
        assert!(
            named.contains(&"netns_ipvs.sysctl_amemthresh".to_owned()),
            "{named:?}"
        );
    }

    #[test]
    fn what_could_not_be_read_is_no_disagreement() {
        let mut specimen = specimen();
        specimen.settings[..28].fill(0);
        let unknown = [None, None]
            .into_iter()
            .chain(SETTINGS[2..].iter().copied().map(Some));
        let unknown: Vec<_> = unknown.collect();
        assert_eq!(layout().disagreements(&specimen, &unknown, None), [""; 0]);
    }
}
