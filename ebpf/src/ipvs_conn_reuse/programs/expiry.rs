//! IPVS expires a connection because of the packet at hand.

use aya_ebpf::{
    helpers::bpf_get_current_comm,
    macros::{fentry, kprobe, map},
    programs::{FEntryContext, ProbeContext},
};
use ebpf::{
    ipvs_conn_reuse::{Fate, IpvsSettings, Outcome, Reason},
    shared::PerCpu,
};

use super::{
    CONN_F_TEMPLATE, IPPROTO_TCP,
    connection::{Connection, Destination},
    counts::count,
    packet::forget_packet,
    waiting::await_connection,
};
use crate::count_if_readable;

/// `IP_VS_CONN_F_NFCT` of include/net/ip_vs.h.
const CONN_F_NFCT: u32 = 1 << 16;

// States of a TCP connection, `enum` in include/net/ip_vs.h.
const STATE_FIN_WAIT: u16 = 4;
const STATE_TIME_WAIT: u16 = 5;
const STATE_CLOSE: u16 = 6;

/// How the names of the threads begin that receive connections (ip_vs_sync.c).
const SYNC_DAEMON: [u8; 6] = *b"ipvs-b";

/// See [`unknown`].
#[map]
static FORGOTTEN: PerCpu<[u32; 2]> = PerCpu::new();

/// All: `void ip_vs_conn_expire_now(struct ip_vs_conn *cp)`, ip_vs_conn.c
#[fentry]
fn expire_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, expired(Connection(ctx.arg(0))));
    0
}

/// As of [`expire_fentry`].
#[kprobe]
fn expire_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(connection) = ctx.arg(0) {
        count_if_readable(&ctx, expired(Connection(connection)));
    }
    0
}

#[inline(always)]
fn expired(connection: Connection) -> Result<(), i32> {
    forget_packet();
    let flags = connection.flags()?;
    if connection.protocol()? != IPPROTO_TCP || flags & CONN_F_TEMPLATE != 0 || in_sync_daemon() {
        return Ok(());
    }
    // Reads that may fail come before the choices: each doubles the paths to verify.
    let destination = connection.destination()?;
    let settings = connection.settings()?;
    let state = connection.state()?;
    let flow = connection.flow()?;
    let tuple = connection.tuple(flow.netns)?;
    let Some(reason) = reason(state, destination, settings) else {
        return Ok(());
    };
    let fate = fate(flags, destination, settings);
    let Some([fate, reason]) = unknown([fate as u32, reason as u32]) else {
        return Ok(());
    };
    // Fates that are outcomes have the numbers of those.
    if fate == Outcome::Rescheduled as u32 || fate == Outcome::Dropped as u32 {
        count(fate, reason, &flow, &tuple, settings);
    }
    await_connection(&tuple, flow, fate, reason, settings);
    Ok(())
}

/// What happens to the packet, as far as it can be told now.
#[inline(always)]
fn fate(flags: u32, destination: Destination, settings: IpvsSettings) -> Fate {
    // Where the destination is gone any packet expires the connection, else only SYNs do.
    let is_syn = destination.available || settings.expire_nodest_conn == 0;
    match (flags & CONN_F_NFCT != 0, is_syn) {
        (true, true) => Fate::Dropped,
        (true, false) => Fate::Unsure,
        (false, true) if settings.conntrack != 0 => Fate::Rescheduled,
        (false, _) => Fate::Unmarked,
    }
}

/// The same numbers, unknown to the verifier. It follows a number that it knows along all that
/// is done with it: five reasons and four fates are as long to it as twenty programs. It does
/// not know a number that comes out of a map.
#[inline(always)]
fn unknown(numbers: [u32; 2]) -> Option<[u32; 2]> {
    let place = FORGOTTEN.get()?;
    // SAFETY: this CPU's own value. Only this program writes it, and the kernel does not enter
    // it again on a CPU where it is running.
    unsafe {
        place.write_volatile(numbers);
        Some(place.read_volatile())
    }
}

/// Which branch of the packet path has expired a connection, in the order in which
/// it asks (`ip_vs_in_hook`, ip_vs_core.c). None: another caller has.
#[inline(always)]
fn reason(state: u16, destination: Destination, settings: IpvsSettings) -> Option<Reason> {
    if settings.expire_nodest_conn != 0 && destination.weight == 0 {
        return Some(Reason::WeightZero);
    }
    let by_state = match state {
        STATE_TIME_WAIT => Some(Reason::TimeWait),
        STATE_CLOSE => Some(Reason::Close),
        STATE_FIN_WAIT if settings.conn_reuse_mode & 2 != 0 => Some(Reason::FinWait),
        _ => None,
    };
    if by_state.is_some() && settings.conn_reuse_mode != 0 {
        return by_state;
    }
    if !destination.available {
        return Some(Reason::DestinationGone);
    }
    None
}

/// Whether the daemon runs that replaces connections which another director has made
/// elsewhere. A packet that interrupts the daemon is mistaken for it, which is rare.
#[inline(always)]
fn in_sync_daemon() -> bool {
    match bpf_get_current_comm() {
        Ok(name) => name[..SYNC_DAEMON.len()] == SYNC_DAEMON,
        Err(_) => false,
    }
}
