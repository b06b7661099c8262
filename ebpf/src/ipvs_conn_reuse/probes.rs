//! Counts the outcome of TCP SYNs that meet an IPVS connection of their tuple, where IPVS
//! expires that connection: never once a packet.
//!
//! - Expired: `ip_vs_conn_expire_now` has two callers in the packet path (ip_vs_core.c),
//!   and one in the daemon that receives connections from another director. A caller in the
//!   packet path has just cleared `IP_VS_CONN_F_NFCT`, unless the packet belongs to a
//!   conntrack entry that is confirmed, and then it drops the packet.
//! - Connected: `ip_vs_schedule` returns the new connection.
//! - Kept: for a packet of a connection whose destination is drained or removed the kernel
//!   makes no call of its own. The look-up and the packet hook are probed for it, but only
//!   while there are such connections that IPVS is told to keep.
//! - Answered: the handlers that translate UDP datagrams, only while UDP flows to drained
//!   destinations stand, and then for a part of the time.
//!
//! All functions are in net/netfilter/ipvs. The prototypes in the modules are those of
//! Linux 5.10.262, 6.1.176, 6.12.117 and 7.3.4, as Debian ships them; "all" means these four.

#![no_std]
#![no_main]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "what is not borrowed is copied to the stack, which has 512 bytes"
)]

mod programs;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::warn;
use ebpf::{
    ipvs_conn_reuse::{Loss, Offsets},
    shared::global,
};

use self::programs::TOTALS;

/// Set by the agent from the types of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Not zero: the probes write to the agent's log what they could not read.
#[unsafe(no_mangle)]
static VERBOSE: u32 = 0;

/// Counts an event whose memory could not be read.
#[inline(always)]
fn count_if_readable(ctx: &impl EbpfContext, counted: Result<(), i32>) {
    if let Err(errno) = counted {
        TOTALS.lost(Loss::Read, 1);
        if global(&VERBOSE) != 0 {
            warn!(
                ctx,
                "a connection of IPVS could not be read: error {}", errno
            );
        }
    }
}
