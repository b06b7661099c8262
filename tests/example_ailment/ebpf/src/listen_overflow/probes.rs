//! Counts connection requests that arrive at a listener with a full accept queue. The kernel
//! drops these: `sk_acceptq_is_full` in `tcp_conn_request`, net/ipv4/tcp_input.c.
//!
//! The prototypes are those of Linux 5.10.262, 6.1.176, 6.12.117 and 7.3.4, as Debian ships them;
//! "all" means these four.

#![no_std]
#![no_main]

use aya_ebpf::{
    macros::{fentry, kprobe, map},
    maps::LruHashMap,
    programs::{FEntryContext, ProbeContext},
};
use ebpf::{
    listen_overflow::{Listener, Loss, Offsets, Totals},
    shared::{PerCpu, add_atomic, get_or_insert, global, read, untyped},
};

/// Set by the agent from the BTF of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

#[map]
static TOTALS: PerCpu<Totals> = PerCpu::new();

/// Drops by listener. The agent sets the size.
#[map]
static DROPS: LruHashMap<Listener, u64> = LruHashMap::with_max_entries(1, 0);

/// All: `int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct
/// tcp_request_sock_ops *af_ops, struct sock *sk, struct sk_buff *skb)`
#[fentry]
fn request_fentry(ctx: FEntryContext) -> i32 {
    count(untyped(ctx.arg(2)));
    0
}

/// As of [`request_fentry`].
#[kprobe]
fn request_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(2) {
        count(sk);
    }
    0
}

#[inline(always)]
fn count(sk: u64) {
    match full_listener(sk as *const u8) {
        Ok(Some(listener)) => match get_or_insert(&DROPS, &listener, || 0) {
            // SAFETY: a value of the map. Other CPUs may count there too, so atomically.
            Some(drops) => unsafe { add_atomic(drops, 1) },
            None => TOTALS.lost(Loss::Listener, 1),
        },
        Ok(None) => {}
        Err(_) => TOTALS.lost(Loss::Read, 1),
    }
}

/// Who listens with this socket, if its accept queue is full.
#[inline(always)]
fn full_listener(sk: *const u8) -> Result<Option<Listener>, i32> {
    // SAFETY: integers and a pointer, as the agent has checked by their sizes.
    unsafe {
        let backlog: u32 = read(sk, global(&OFFSETS.backlog))?;
        let max_backlog: u32 = read(sk, global(&OFFSETS.max_backlog))?;
        if backlog <= max_backlog {
            return Ok(None);
        }
        let net: u64 = read(sk, global(&OFFSETS.net))?;
        Ok(Some(Listener {
            netns: read(net as *const u8, global(&OFFSETS.net_inum))?,
            port: read::<u16>(sk, global(&OFFSETS.port))?.into(),
        }))
    }
}
