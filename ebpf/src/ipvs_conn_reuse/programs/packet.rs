//! SYNs that IPVS neither reschedules nor drops with the old connection, and UDP datagrams
//! that it drops: the look-up of their connection, and the end of the packet hook.
//!
//! The agent attaches both only while some destination is drained or removed whose
//! connections IPVS is told to keep.

use aya_ebpf::{
    bindings::BPF_ANY,
    macros::{fexit, kprobe, kretprobe, map},
    maps::{Array, HashMap, LruHashMap},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use ebpf::{
    ipvs_conn_reuse::{Fate, Loss, Outcome, Reason, UdpEvent},
    shared::{
        calls::{self, CallMap},
        context_id, global, read, value_of,
    },
};

use super::{
    IPPROTO_TCP, IPPROTO_UDP,
    connection::Connection,
    counts::{TOTALS, count},
    datagrams,
    waiting::await_connection,
};
use crate::{OFFSETS, count_if_readable};

/// `NF_DROP` of include/uapi/linux/netfilter.h.
const NF_DROP: u32 = 0;
/// `IP_VS_HDR_ICMP`: the packet is an error about the connection, and not of it.
const HEADER_OF_ICMP: u32 = 2;
/// Where the flags lie in a TCP header, bytes.
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Not zero while both ends of a look-up and the packet hook are probed.
#[map]
static TRACING_ACTIVE: Array<u64> = Array::with_max_entries(1, 0);

/// SYNs and UDP datagrams under way through the packet hook, by context.
#[map]
static NOTES: LruHashMap<u64, Note> = LruHashMap::with_max_entries(1024, 0);

#[map]
static LOOKUPS: CallMap = HashMap::with_max_entries(1024, 0);

/// A SYN of a connection whose destination is drained or removed, or a UDP datagram to a
/// removed one, from the look-up to the end of the hook.
#[derive(Clone, Copy)]
#[repr(C)]
struct Note {
    connection: u64,
    /// 1 where the destination is removed, 0 where it is drained.
    gone: u32,
    /// 1 for a datagram, 0 for a SYN.
    datagram: u32,
}

/// All: `struct ip_vs_conn *ip_vs_conn_in_get_proto(struct netns_ipvs *ipvs, int af, const
/// struct sk_buff *skb, const struct ip_vs_iphdr *iph)`, ip_vs_conn.c
#[fexit]
fn lookup_fexit(ctx: FExitContext) -> i32 {
    let found = Connection(ctx.arg(4));
    count_if_readable(&ctx, looked_up(ctx.arg(2), ctx.arg(3), found));
    0
}

/// As of [`lookup_fexit`].
#[kprobe]
fn lookup_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(header)) = (ctx.arg(2), ctx.arg(3)) {
        TOTALS.lost(Loss::Call, calls::enter(&LOOKUPS, &ctx, [skb, header]));
    }
    0
}

/// As of [`lookup_fexit`].
#[kretprobe]
fn lookup_kretprobe(ctx: RetProbeContext) -> u32 {
    let returned = calls::leave(&LOOKUPS, &ctx);
    // While the agent attaches and detaches the probes one of both is seen alone.
    if is_tracing() {
        TOTALS.lost(Loss::Call, returned.unreturned);
        TOTALS.lost(Loss::Call, u64::from(!returned.seen));
    }
    if returned.seen {
        let [skb, header] = returned.arguments;
        count_if_readable(&ctx, looked_up(skb, header, Connection(ctx.ret())));
    }
    0
}

/// 6.1, 6.12, 7.3: `unsigned int ip_vs_in_hook(void *priv, struct sk_buff *skb, const struct
/// nf_hook_state *state)`, static, ip_vs_core.c
#[fexit]
fn hook_fexit(ctx: FExitContext) -> i32 {
    count_if_readable(&ctx, passed(ctx.arg(3)));
    0
}

/// As of [`hook_fexit`]. In 5.10 the hooks are `ip_vs_remote_request4`,
/// `ip_vs_remote_request6`, `ip_vs_local_request4` and `ip_vs_local_request6`, of the same
/// prototype.
#[kretprobe]
fn hook_kretprobe(ctx: RetProbeContext) -> u32 {
    count_if_readable(&ctx, passed(ctx.ret()));
    0
}

/// The connection of a packet was found, or none.
#[inline(always)]
fn looked_up(skb: u64, header: u64, found: Connection) -> Result<(), i32> {
    if found.0 == 0 || !is_tracing() {
        return Ok(());
    }
    let protocol = found.protocol()?;
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return Ok(());
    }
    let destination = found.destination()?;
    if destination.weight != 0 && destination.available {
        return Ok(());
    }
    let is_datagram = protocol == IPPROTO_UDP;
    let is_wanted = if is_datagram {
        !destination.available && is_of(header, IPPROTO_UDP)?
    } else {
        is_syn(skb, header, found)?
    };
    if is_wanted {
        let note = Note {
            connection: found.0,
            gone: u32::from(!destination.available),
            datagram: u32::from(is_datagram),
        };
        if NOTES
            .insert(context_id(), note, u64::from(BPF_ANY))
            .is_err()
        {
            TOTALS.lost(Loss::Call, 1);
        }
    }
    Ok(())
}

/// Whether a packet is one of a connection of this protocol, and not an error about it.
#[inline(always)]
fn is_of(header: u64, wanted: u16) -> Result<bool, i32> {
    let header = header as *const u8;
    // SAFETY: integers.
    let (flags, protocol) = unsafe {
        (
            read::<u32>(header, global(&OFFSETS.header_flags))?,
            read::<u16>(header, global(&OFFSETS.header_protocol))?,
        )
    };
    Ok(flags & HEADER_OF_ICMP == 0 && protocol == wanted)
}

/// Whether a packet opens a connection. An error where its port is not that of the
/// connection: the header is then not where the length says.
#[inline(always)]
fn is_syn(skb: u64, header: u64, connection: Connection) -> Result<bool, i32> {
    if !is_of(header, IPPROTO_TCP)? {
        return Ok(false);
    }
    // SAFETY: integers.
    let (length, data) = unsafe {
        (
            read::<u32>(header as *const u8, global(&OFFSETS.header_length))?,
            read::<u64>(skb as *const u8, global(&OFFSETS.skb_data))?,
        )
    };
    let transport = (data as *const u8).wrapping_add(length as usize);
    // SAFETY: integers.
    let (client_port, flags) = unsafe {
        (
            read::<u16>(transport, 0)?,
            read::<u8>(transport, TCP_FLAGS)?,
        )
    };
    if u16::from_be(client_port) != connection.client_port()? {
        return Err(-1);
    }
    Ok(flags & (TCP_SYN | TCP_ACK) == TCP_SYN)
}

/// A packet has passed the hook. One that is still noted has expired nothing.
#[inline(always)]
fn passed(verdict: u32) -> Result<(), i32> {
    let context = context_id();
    let Some(note) = NOTES.get_ptr(context) else {
        return Ok(());
    };
    // SAFETY: a value of the map, used by this context alone.
    let note = unsafe { *note };
    let _gone = NOTES.remove(context);
    // The hook has dropped its reference, but the kernel frees a connection only after its
    // timeout, which is far, and a grace period.
    let connection = Connection(note.connection);
    if note.datagram != 0 {
        // Where the destination came back meanwhile, IPVS has sent it on.
        return if verdict == NF_DROP {
            datagrams::count(UdpEvent::Dropped, connection)
        } else {
            Ok(())
        };
    }
    let settings = connection.settings()?;
    let flow = connection.flow()?;
    let tuple = connection.tuple(flow.netns)?;
    let reason = if note.gone != 0 {
        Reason::DestinationGone
    } else {
        Reason::WeightZero
    };
    let reason = reason as u32;
    let outcome = if verdict == NF_DROP {
        Outcome::DroppedSilently
    } else {
        Outcome::StaleDestination
    };
    count(outcome as u32, reason, &flow, &tuple, settings);
    if verdict == NF_DROP {
        await_connection(&tuple, flow, Fate::Dropped as u32, reason, settings);
    }
    Ok(())
}

/// The packet of this context has expired its connection, which counts SYNs.
#[inline(always)]
pub(super) fn forget_packet() {
    let _unnoted = NOTES.remove(context_id());
}

#[inline(always)]
fn is_tracing() -> bool {
    value_of(&TRACING_ACTIVE, 0).is_some_and(|tracing| tracing != 0)
}
