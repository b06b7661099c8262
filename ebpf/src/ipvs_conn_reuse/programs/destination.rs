//! A destination is removed from its service or drained, while IPVS is told to keep its
//! connections: the agent then traces their SYNs.

use aya_ebpf::{
    macros::{fentry, kprobe, map},
    maps::RingBuf,
    programs::{FEntryContext, ProbeContext},
};
use ebpf::{
    ipvs_conn_reuse::CHANGES_BYTES,
    shared::{global, read},
};

use crate::{OFFSETS, count_if_readable};

/// An entry for each such change.
#[map]
static CHANGES: RingBuf = RingBuf::with_byte_size(CHANGES_BYTES, 0);

/// All: `void __ip_vs_del_dest(struct netns_ipvs *ipvs, struct ip_vs_dest *dest, bool
/// cleanup)`, static, ip_vs_ctl.c
#[fentry]
fn removal_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, removed(ctx.arg(0)));
    0
}

/// As of [`removal_fentry`].
#[kprobe]
fn removal_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(ipvs) = ctx.arg(0) {
        count_if_readable(&ctx, removed(ipvs));
    }
    0
}

/// All: `int ip_vs_edit_dest(struct ip_vs_service *svc, struct ip_vs_dest_user_kern *udest)`,
/// static, ip_vs_ctl.c
#[fentry]
fn edit_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, edited(ctx.arg(0), ctx.arg(1)));
    0
}

/// As of [`edit_fentry`].
#[kprobe]
fn edit_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(service), Some(wanted)) = (ctx.arg(0), ctx.arg(1)) {
        count_if_readable(&ctx, edited(service, wanted));
    }
    0
}

#[inline(always)]
fn removed(ipvs: u64) -> Result<(), i32> {
    // SAFETY: the low byte of an integer whose values are small.
    let expires: u8 = unsafe { read(ipvs as *const u8, global(&OFFSETS.expire_nodest_conn)) }?;
    if expires == 0 {
        // Where there is no room the agent has not looked yet, and will find the others.
        let _full = CHANGES.output::<u64>(0, 0);
    }
    Ok(())
}

/// A destination is to be changed: with weight 0 it is drained.
#[inline(always)]
fn edited(service: u64, wanted: u64) -> Result<(), i32> {
    // SAFETY: integers.
    let (weight, ipvs) = unsafe {
        (
            read::<u32>(wanted as *const u8, global(&OFFSETS.wanted_weight))?,
            read::<u64>(service as *const u8, global(&OFFSETS.service_ipvs))?,
        )
    };
    if weight != 0 {
        return Ok(());
    }
    removed(ipvs)
}
