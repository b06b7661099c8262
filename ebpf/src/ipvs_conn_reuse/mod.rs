//! ABI of `ipvs_conn_reuse`: the outcome of TCP SYNs that met an IPVS connection of the
//! same client address and port, and of UDP datagrams whose destination is drained or removed.

use crate::shared::{abi, histogram::Histogram, label_values, losses, offsets};

/// Buckets of the delay histogram: 1/64 s, 1/32 s, … 128 s, and all above.
pub const DELAY_BUCKETS: usize = 15;

/// The unit of the delay histogram's bounds, nanoseconds. A client repeats its SYN
/// after 1, 3, 7, 15 s and so on, each a little above a power of two less one, so
/// that neighbouring repeats fall into different buckets.
pub const DELAY_UNIT_NS: u64 = 15_625_000;

/// Where the members lie in the structures of the running kernel, in bytes
/// (include/net/ip_vs.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `ip_vs_conn.af`, of which the low byte is read: 16 bits up to 6.12, 8 from 7.2.
    pub family: u32,
    /// `ip_vs_conn.daf`, the destination's family, likewise.
    pub destination_family: u32,
    /// `ip_vs_conn.protocol`, 16 bits.
    pub protocol: u32,
    /// `ip_vs_conn.caddr`, the client's address, 16 bytes.
    pub client: u32,
    /// `ip_vs_conn.cport`, big endian.
    pub client_port: u32,
    /// `ip_vs_conn.vaddr`, the virtual address, 16 bytes.
    pub virtual_address: u32,
    /// `ip_vs_conn.vport`, big endian.
    pub virtual_port: u32,
    /// `ip_vs_conn.daddr`, the destination's address, 16 bytes.
    pub destination: u32,
    /// `ip_vs_conn.dport`, big endian.
    pub destination_port: u32,
    /// `ip_vs_conn.flags`, 32 bits.
    pub flags: u32,
    /// `ip_vs_conn.state`, 16 bits.
    pub state: u32,
    /// `ip_vs_conn.dest`: pointer to the destination, which may be null.
    pub dest: u32,
    /// `ip_vs_conn.ipvs`: pointer to what IPVS has of the network namespace.
    pub ipvs: u32,
    /// `ip_vs_dest.weight`, 32 bits.
    pub dest_weight: u32,
    /// `ip_vs_dest.cflags` or, before it was split off, `ip_vs_dest.flags`: the low
    /// byte says whether the destination is still in its service.
    pub dest_available: u32,
    /// `netns_ipvs.net`: pointer to the network namespace.
    pub ipvs_net: u32,
    /// `netns_ipvs.sysctl_conntrack`, 32 bits, as the ones below.
    pub conntrack: u32,
    /// `netns_ipvs.sysctl_conn_reuse_mode`
    pub conn_reuse_mode: u32,
    /// `netns_ipvs.sysctl_expire_nodest_conn`
    pub expire_nodest_conn: u32,
    /// `netns_ipvs.sysctl_expire_quiescent_template`
    pub expire_quiescent_template: u32,
    /// `net.ns.inum`: the number that `/proc/<pid>/ns/net` shows.
    pub net_inum: u32,
    /// `ip_vs_service.ipvs`: pointer to what IPVS has of the network namespace.
    pub service_ipvs: u32,
    /// `ip_vs_dest_user_kern.weight`, 32 bits: what user space wants it to be.
    pub wanted_weight: u32,
    /// `ip_vs_iphdr.hdr_flags`, 32 bits.
    pub header_flags: u32,
    /// `ip_vs_iphdr.len`: where the transport header lies after `sk_buff.data`.
    pub header_length: u32,
    /// `ip_vs_iphdr.protocol`, 16 bits.
    pub header_protocol: u32,
    /// `sk_buff.data`: pointer to the packet's first byte.
    pub skb_data: u32,
}

/// One client's port and one virtual service: what a SYN has in common with the
/// connection that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Tuple {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// The client's port, host order.
    pub client_port: u16,
    /// The virtual port, host order.
    pub virtual_port: u16,
    /// Zero.
    pub unused: u16,
    /// The client's address; IPv4 takes the first 4 bytes, as everywhere here.
    pub client: [u8; 16],
    /// The virtual address.
    pub virtual_address: [u8; 16],
}

/// A virtual service, and the destination that a connection of it belonged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Flow {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Family of the virtual address.
    pub family: u16,
    /// Family of the destination's address: it may differ where packets are tunnelled.
    pub destination_family: u16,
    /// The virtual port, host order.
    pub virtual_port: u16,
    /// The destination's port, host order.
    pub destination_port: u16,
    /// The virtual address.
    pub virtual_address: [u8; 16],
    /// The destination's address.
    pub destination: [u8; 16],
}

/// A client, whatever its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Client {
    /// Inode number of the network namespace of the virtual service.
    pub netns: u32,
    /// Family of the address.
    pub family: u16,
    /// Zero.
    pub unused: u16,
    /// The address.
    pub address: [u8; 16],
}

/// One UDP flow and the destination that IPVS keeps it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct UdpFlow {
    /// The client's port and the virtual service.
    pub tuple: Tuple,
    /// Family of the destination's address.
    pub destination_family: u16,
    /// The destination's port, host order.
    pub destination_port: u16,
    /// The destination's address.
    pub destination: [u8; 16],
}

/// What was counted for one [`UdpFlow`] since its key entered the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UdpCounts {
    /// Datagrams by [`UdpEvent`].
    pub datagrams: [u64; UdpEvent::ALL.len()],
    /// When the first of the client's came after a pause of [`UDP_PAUSE_NS`]:
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// When the last of the client's came, likewise.
    pub last_ns: u64,
}

/// A client that sends after a pause of this length begins a new flow: IPVS keeps the
/// connection of an idle one for 300 s by default (ip_vs_proto_udp.c, `udp_timeouts`).
pub const UDP_PAUSE_NS: u64 = 300_000_000_000;

/// SYNs by [`Outcome`].
pub type SynCounts = [u64; Outcome::ALL.len()];

/// What was counted for one [`Flow`] since its key entered the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowCounts {
    /// SYNs by outcome.
    pub syns: SynCounts,
    /// The destination of the last SYN that IPVS rescheduled; zeros before there was one.
    pub new_destination: [u8; 16],
    /// Family of that address, 0 before.
    pub new_family: u16,
    /// That destination's port, host order.
    pub new_port: u16,
    /// The settings at the last SYN.
    pub settings: IpvsSettings,
}

/// What was counted for one [`Client`] since its key entered the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClientCounts {
    /// SYNs by outcome.
    pub syns: SynCounts,
}

/// The sysctls `net.ipv4.vs.*` of one network namespace that decide about SYNs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct IpvsSettings {
    /// `conn_reuse_mode`
    pub conn_reuse_mode: u8,
    /// `expire_nodest_conn`
    pub expire_nodest_conn: u8,
    /// `conntrack`
    pub conntrack: u8,
    /// `expire_quiescent_template`
    pub expire_quiescent_template: u8,
}

/// A SYN whose client has no new connection yet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Waiting {
    /// When the first such SYN of the tuple came: `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// The context that it was in.
    pub context: u64,
    /// The flow for which it was counted.
    pub flow: Flow,
    /// A [`Fate`].
    pub fate: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// The settings at that time.
    pub settings: IpvsSettings,
    /// Zero.
    pub unused: [u8; 6],
}

/// What is known of the packet in a [`Waiting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// IPVS rescheduled it at once.
    Rescheduled = 0,
    /// IPVS dropped it, and the probes counted it.
    Dropped = 1,
    /// Without `vs.conntrack` the kernel's own mark is missing. A new connection that
    /// follows at once shows that IPVS rescheduled the SYN, a later one that IPVS dropped it.
    Unmarked = 2,
    /// IPVS dropped a packet to a destination that is gone. If it was a SYN, the client
    /// repeats it.
    Unsure = 3,
}

label_values! {
    /// The outcome of a SYN that met a connection of its tuple.
    pub enum Outcome {
        /// IPVS expired the old connection and scheduled a new one at once.
        Rescheduled = "rescheduled",
        /// IPVS expired the old connection, but dropped the SYN: the client waits until
        /// it sends the next.
        Dropped = "dropped",
        /// IPVS dropped the SYN and kept the old connection, so that it drops the next as well.
        DroppedSilently = "dropped_silently",
        /// IPVS sent the SYN to the old connection's destination, which is drained.
        StaleDestination = "stale_destination",
    }
}

label_values! {
    /// What of the old connection decided the outcome.
    pub enum Reason {
        /// Its destination has weight 0.
        WeightZero = "weight_zero",
        /// Its destination is no longer in the service.
        DestinationGone = "destination_gone",
        /// It was in TIME_WAIT.
        TimeWait = "time_wait",
        /// It was in CLOSE: one side had reset it.
        Close = "close",
        /// It was in FIN_WAIT, and its server's packets do not pass here (mode 2).
        FinWait = "fin_wait",
    }
}

label_values! {
    /// A datagram of a UDP flow whose destination is drained or removed.
    pub enum UdpEvent {
        /// IPVS dropped a client's datagram: the destination is removed.
        Dropped = "dropped",
        /// IPVS sent a client's datagram to the destination, which is drained.
        Sent = "sent",
        /// IPVS sent an answer of the drained destination to the client.
        Answered = "answered",
    }
}

label_values! {
    /// Why an event, or a part of one, is missing from the counts.
    pub enum Loss {
        /// Kernel memory could not be read: the event is not counted at all.
        Read = "read",
        /// An entry's return probe found no entry probe, or there was no room to
        /// remember it: the event is not counted at all.
        Call = "call",
        /// A map of flows or clients took no more: counted, but under no name.
        Name = "name",
        /// The map of waiting clients took no more: its delay will be unknown.
        Waiting = "waiting",
    }
}

/// All counts of one CPU since the probes were attached.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Totals {
    /// SYNs by [`Outcome`] and [`Reason`].
    pub syns: [[u64; Reason::ALL.len()]; Outcome::ALL.len()],
    /// From the first dropped SYN of a tuple to its new connection.
    pub delays: Histogram<DELAY_BUCKETS>,
    /// Datagrams by [`UdpEvent`].
    pub datagrams: [u64; UdpEvent::ALL.len()],
    /// Events lost, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
}

/// Bytes of a connection, of a destination and of the settings that a [`Specimen`] has.
pub const CONNECTION_BYTES: usize = 192;
/// See [`CONNECTION_BYTES`].
pub const DEST_BYTES: usize = 432;
/// See [`CONNECTION_BYTES`].
pub const SETTINGS_BYTES: usize = 128;
/// Bytes of the parameters of a new connection.
pub const PARAMETER_BYTES: usize = 32;

/// Specimens that are taken.
pub const SPECIMENS: u32 = 4;

/// Where to find what a [`Specimen`] is made of, in bytes: by a layout that was
/// recorded, and is to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SpecimenOffsets {
    /// `ip_vs_conn_param.ipvs`: pointer to what IPVS has of the network namespace.
    pub ipvs: u32,
    /// `ip_vs_conn_param.caddr`: pointer to the client's address.
    pub client: u32,
    /// `ip_vs_conn_param.vaddr`: pointer to the virtual address.
    pub virtual_address: u32,
    /// Where in `netns_ipvs` the bytes of [`Specimen::settings`] begin.
    pub settings: u32,
}

/// One call of `ip_vs_conn_new(p, dest_af, daddr, dport, flags, dest, fwmark)` and the
/// connection that it returned, as they lay in memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Specimen {
    /// `dest`, a pointer.
    pub dest_pointer: u64,
    /// `dest_af`
    pub destination_family: u32,
    /// `dport`, big endian, in the low 16 bits.
    pub destination_port: u32,
    /// `flags`
    pub flags: u32,
    /// Inode number of the network namespace, found by way of `p`.
    pub netns: u32,
    /// `*daddr`
    pub destination: [u8; 16],
    /// `*p->caddr`
    pub client: [u8; 16],
    /// `*p->vaddr`
    pub virtual_address: [u8; 16],
    /// `*p`
    pub parameters: [u8; PARAMETER_BYTES],
    /// The connection.
    pub connection: [u8; CONNECTION_BYTES],
    /// `*dest`
    pub dest: [u8; DEST_BYTES],
    /// A part of `*p->ipvs`.
    pub settings: [u8; SETTINGS_BYTES],
}

/// Bytes of the ring of changes: a page holds what comes while the agent looks.
pub const CHANGES_BYTES: u32 = 4096;

/// Places of the map of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Number {
    /// Clients that entered the map of those that wait, less those that connected.
    Entered = 0,
    /// Clients that the agent took out of it. Where both are equal nobody waits.
    Swept = 1,
}

impl Number {
    /// How many there are.
    pub const COUNT: u32 = 2;
}

losses!(Totals, Loss);
offsets!(Offsets, SpecimenOffsets);

abi!(
    Offsets,
    Tuple,
    Flow,
    FlowCounts,
    Client,
    ClientCounts,
    UdpFlow,
    UdpCounts,
    Waiting,
    Totals,
    SpecimenOffsets,
    Specimen
);
