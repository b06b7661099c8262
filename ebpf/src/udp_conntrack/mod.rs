//! ABI of `udp_conntrack`: the creation and the removal of UDP entries in the
//! connection tracking table.

use crate::shared::{abi, histogram::Histogram, label_values, losses, offsets};

/// Buckets of the lifetime histogram: 1 s, 2 s, … 16,384 s, and all above.
pub const LIFETIME_BUCKETS: usize = 16;

/// The unit of the lifetime histogram's bounds, nanoseconds.
pub const LIFETIME_UNIT_NS: u64 = 1_000_000_000;

/// Destination ports from here on are counted as one class, port 0: it is where
/// `net.ipv4.ip_local_port_range` begins by default, so a port above names a
/// client's socket rather than a service.
pub const EPHEMERAL_PORT: u16 = 32_768;

/// Of an entry, a `struct nf_conn`, this many times 8 bytes are read at once: from the
/// expiry past the tuples and the status to the namespace are 18 in the kernels that
/// are known.
pub const ENTRY_WORDS: usize = 20;

/// Where the members lie in the structures of the running kernel, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `sk_buff._nfct`: pointer to the entry, its low three bits hold other things.
    pub skb_nfct: u32,
    /// `nf_conn.ct_general`: the reference count, by whose address an entry is
    /// destroyed.
    pub ct_general: u32,
    /// Where the part of `nf_conn` begins that is read: a multiple of 8.
    pub ct_part: u32,
    /// Where the members lie in that part.
    pub ct: EntryOffsets,
    /// `net.ns.inum`: the number that `/proc/<pid>/ns/net` shows.
    pub net_inum: u32,
    /// `net.ct.nf_ct_proto.udp.timeouts[UDP_CT_UNREPLIED]`: jiffies, 32 bits.
    pub net_udp_timeout: u32,
}

/// Members of `nf_conn`, counted from [`Offsets::ct_part`]. Each lies within
/// [`ENTRY_WORDS`], at a multiple of its size, or of 4 for the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EntryOffsets {
    /// `status`: bits of `enum ip_conntrack_status`.
    pub status: u32,
    /// `timeout`: jiffies at which the entry expires, 32 bits.
    pub timeout: u32,
    /// `ct_net.net`: pointer to the network namespace.
    pub net: u32,
    /// `tuplehash[ORIGINAL].tuple.src.u3`: source address, 16 bytes.
    pub source_address: u32,
    /// `tuplehash[ORIGINAL].tuple.src.l3num`: address family, 16 bits.
    pub family: u32,
    /// `tuplehash[ORIGINAL].tuple.dst.u`: destination port, big endian.
    pub destination_port: u32,
    /// `tuplehash[ORIGINAL].tuple.dst.protonum`: protocol, 8 bits.
    pub protocol: u32,
}

/// Whose entries are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Flow {
    /// Inode number of the network namespace whose table holds the entry.
    pub netns: u32,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// Destination port, host order; 0 for [`EPHEMERAL_PORT`] and above.
    pub port: u16,
    /// Source address of the original direction; IPv4 takes the first 4 bytes.
    pub source: [u8; 16],
}

/// What was counted for one [`Flow`] since its key entered the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowCounts {
    /// Entries made.
    pub created: u64,
    /// Entries removed.
    pub removed: u64,
    /// Jiffies that entries stood in the table after the last packet of a flow
    /// that was never assured.
    pub wasted_jiffies: u64,
}

/// A flow with refused connections, and the kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct RefusedFlow {
    /// Of [`Refusal::TableFull`] the network namespace alone is known; the rest is 0.
    pub flow: Flow,
    /// A [`Refusal`].
    pub refusal: u16,
    /// Of include/uapi/linux/in.h.
    pub protocol: u16,
}

label_values! {
    /// What became of a new connection where the table did not take its entry as it was.
    pub enum Refusal {
        /// The table was full, and `early_drop` found no entry to evict: the packet is dropped.
        TableFull = "table_full",
        /// `__nf_conntrack_confirm` dropped the packet without a clash: a hash chain was too
        /// long, on kernels that limit it, or the entry was deleted meanwhile.
        NotInserted = "not_inserted",
        /// Another packet had inserted an equal entry, and this packet is dropped.
        ClashLost = "clash_lost",
        /// The same, and this packet goes on, with that entry or its own.
        ClashResolved = "clash_resolved",
    }
}

label_values! {
    /// How an entry ended.
    pub enum End {
        /// Its timeout had passed.
        Expired = "expired",
        /// Pushed out by a new entry, the table being full.
        EarlyDrop = "early_drop",
        /// Deleted by ctnetlink.
        Userspace = "userspace",
        /// Everything else: an interface or namespace went, IPVS, a clash.
        Other = "other",
    }
}

label_values! {
    /// What a flow had become when its entry was removed.
    pub enum State {
        /// Nothing came back.
        Unreplied = "unreplied",
        /// An answer came, and the flow was over before it counted as a stream.
        Replied = "replied",
        /// A stream: kept for `nf_conntrack_udp_timeout_stream`, and never pushed out.
        Assured = "assured",
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
        /// The map of flows took no more: counted, but in no flow.
        Flow = "flow",
        /// The map of births took no more: the entry's lifetime will be unknown.
        Birth = "birth",
        /// Removed without a birth on record: made before the probes were attached,
        /// or pushed out of the map of births. Its lifetime is unknown.
        Lifetime = "lifetime",
    }
}

/// All counts of one CPU since the probes were attached.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Totals {
    /// UDP entries made.
    pub created: u64,
    /// Entries of other protocols made.
    pub created_other: u64,
    /// UDP entries removed, by [`End`] and [`State`].
    pub removed: [[u64; State::ALL.len()]; End::ALL.len()],
    /// Entries of other protocols removed.
    pub removed_other: u64,
    /// See [`FlowCounts::wasted_jiffies`].
    pub wasted_jiffies: u64,
    /// Lifetimes of removed UDP entries whose birth was seen.
    pub lifetimes: Histogram<LIFETIME_BUCKETS>,
    /// New connections of all protocols that were refused, by [`Refusal`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Events lost, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
}

losses!(Totals, Loss);
offsets!(Offsets);

abi!(Offsets, Flow, FlowCounts, RefusedFlow, Totals);
