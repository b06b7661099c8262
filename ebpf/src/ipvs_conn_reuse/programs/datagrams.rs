//! UDP datagrams of flows that IPVS keeps on a destination that is drained or removed.
//!
//! The agent attaches the handlers for a part of the time in which flows to drained
//! destinations stand. The packet hook, `packet`, tells of datagrams that IPVS drops.

use aya_ebpf::{
    macros::{fentry, kprobe, map},
    maps::LruHashMap,
    programs::{FEntryContext, ProbeContext},
};
use ebpf::{
    ipvs_conn_reuse::{Loss, UDP_PAUSE_NS, UdpCounts, UdpEvent, UdpFlow},
    shared::{add_atomic, get_or_insert, now_ns},
};

use super::{connection::Connection, counts::TOTALS};
use crate::count_if_readable;

const EVENTS: usize = UdpEvent::ALL.len();

/// The agent sets the size.
#[map]
static UDP_FLOWS: LruHashMap<UdpFlow, UdpCounts> = LruHashMap::with_max_entries(1, 0);

/// All: `int udp_dnat_handler(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn
/// *cp, struct ip_vs_iphdr *iph)`, static, ip_vs_proto_udp.c: a client's datagram on its way.
#[fentry]
fn sent_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, translated(UdpEvent::Sent, Connection(ctx.arg(2))));
    0
}

/// As of [`sent_fentry`].
#[kprobe]
fn sent_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(connection) = ctx.arg(2) {
        count_if_readable(&ctx, translated(UdpEvent::Sent, Connection(connection)));
    }
    0
}

/// All: `int udp_snat_handler(struct sk_buff *skb, struct ip_vs_protocol *pp, struct ip_vs_conn
/// *cp, struct ip_vs_iphdr *iph)`, static, ip_vs_proto_udp.c: an answer on its way. Errors of
/// ICMP take another way, `ip_vs_nat_icmp`.
#[fentry]
fn answered_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, translated(UdpEvent::Answered, Connection(ctx.arg(2))));
    0
}

/// As of [`answered_fentry`].
#[kprobe]
fn answered_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(connection) = ctx.arg(2) {
        count_if_readable(&ctx, translated(UdpEvent::Answered, Connection(connection)));
    }
    0
}

/// Of healthy flows it reads two numbers.
#[inline(always)]
fn translated(event: UdpEvent, connection: Connection) -> Result<(), i32> {
    if connection.destination()?.weight != 0 {
        return Ok(());
    }
    count(event, connection)
}

/// Counts a datagram in all and for its flow.
#[inline(always)]
pub(super) fn count(event: UdpEvent, connection: Connection) -> Result<(), i32> {
    let tuple = connection.tuple(connection.netns()?)?;
    let destination = connection.endpoint()?;
    let flow = UdpFlow {
        tuple,
        destination_family: u16::from(destination.family),
        destination_port: destination.port,
        destination: destination.address,
    };
    if let Some(totals) = TOTALS.get() {
        // SAFETY: a value of the map. Several programs count here, so atomically.
        unsafe { add_atomic(&raw mut (*totals).datagrams[event as usize], 1) };
    }
    let nothing = || UdpCounts {
        datagrams: [0; EVENTS],
        since_ns: 0,
        last_ns: 0,
    };
    let Some(sum) = get_or_insert(&UDP_FLOWS, &flow, nothing) else {
        TOTALS.lost(Loss::Name, 1);
        return Ok(());
    };
    // SAFETY: a value of the map. The datagrams of one flow seldom meet on two CPUs, and then
    // both write nearly the same times.
    unsafe {
        add_atomic(&raw mut (*sum).datagrams[event as usize], 1);
        if event as usize != UdpEvent::Answered as usize {
            let now = now_ns();
            if now.saturating_sub((*sum).last_ns) > UDP_PAUSE_NS {
                (*sum).since_ns = now;
            }
            (*sum).last_ns = now;
        }
    }
    Ok(())
}
