//! Counts UDP entries of the connection tracking table where they are made and
//! where they are removed: once a flow, never once a packet.
//!
//! - Made: `__nf_conntrack_confirm` returns `NF_ACCEPT` (nf_conntrack_core.c).
//!   The packet may by then carry an entry that another packet had inserted
//!   first; that one is not counted again.
//! - Removed: `nf_ct_destroy` (`destroy_conntrack` up to 5.10) runs once for each
//!   entry, whatever way it went, while nobody can reuse it yet. `nf_ct_delete`
//!   alone knows whether user space asked for it, so that is noted there.

#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::{fentry, fexit, kprobe, kretprobe, map},
    maps::{HashMap, LruHashMap, PerCpuArray},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use aya_log_ebpf::warn;
use ebpf::{
    shared::{
        add,
        calls::{self, CallMap},
        context_id, global, read,
    },
    udp_conntrack::{
        Birth, EPHEMERAL_PORT, End, Flow, FlowCounts, LIFETIME_UNIT_NS, Loss, Offsets, State,
        Totals,
    },
};

/// `NF_ACCEPT` of include/uapi/linux/netfilter.h.
const NF_ACCEPT: u32 = 1;
/// `NFCT_PTRMASK` of include/linux/skbuff.h.
const NFCT_PTRMASK: u64 = !7;
const IPPROTO_UDP: u8 = 17;
const AF_INET: u16 = 2;
// Bits of `enum ip_conntrack_status`, include/uapi/linux/netfilter/nf_conntrack_common.h.
const IPS_SEEN_REPLY: u32 = 1 << 1;
const IPS_ASSURED: u32 = 1 << 2;
const IPS_CONFIRMED: u32 = 1 << 3;
const IPS_NAT_CLASH: u32 = 1 << 12;

/// Set by the agent from the BTF of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets {
    skb_nfct: 0,
    ct_general: 0,
    ct_status: 0,
    ct_timeout: 0,
    ct_net: 0,
    source_address: 0,
    family: 0,
    destination_port: 0,
    protocol: 0,
    net_inum: 0,
    net_udp_timeout: 0,
};

/// Not zero: the probes say in the agent's log what they could not read.
#[unsafe(no_mangle)]
static VERBOSE: u32 = 0;

#[map]
static TOTALS: PerCpuArray<Totals> = PerCpuArray::with_max_entries(1, 0);

/// The agent sets the size of this map and of the next.
#[map]
static FLOWS: LruHashMap<Flow, FlowCounts> = LruHashMap::with_max_entries(1, 0);

/// By the address of the `nf_conn`. The slab reuses addresses at once, so a
/// removal takes its birth out, and a new entry overwrites one left behind.
#[map]
static BIRTHS: LruHashMap<u64, Birth> = LruHashMap::with_max_entries(1, 0);

/// Packets (`sk_buff` addresses) whose own entry lost against an equal one.
#[map]
static CLASHES: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1024, 0);

/// Contexts that are inside `early_drop`.
#[map]
static EARLY_DROPS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1024, 0);

/// Entries that user space has deleted and that are not destroyed yet.
#[map]
static DELETED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(4096, 0);

#[map]
static CONFIRMS: CallMap = HashMap::with_max_entries(1024, 0);

// Hooks: fentry and fexit.

#[fexit]
fn confirm_fexit(ctx: FExitContext) -> i32 {
    let skb: u64 = ctx.arg(0);
    let verdict: u32 = ctx.arg(1);
    if verdict == NF_ACCEPT && !lost_a_clash(skb) {
        count_if_readable(&ctx, created(skb));
    }
    0
}

/// `nf_ct_resolve_clash(skb, h, reply_hash)`: the packet goes on with the entry
/// that was first, except where its own could be inserted under `IPS_NAT_CLASH`.
#[fexit]
fn clash_fexit(ctx: FExitContext) -> i32 {
    let skb: u64 = ctx.arg(0);
    let verdict: u32 = ctx.arg(3);
    if verdict == NF_ACCEPT {
        count_if_readable(&ctx, clashed(skb));
    }
    0
}

#[fentry]
fn delete_fentry(ctx: FEntryContext) -> i32 {
    note_deletion(ctx.arg(0), ctx.arg(1));
    0
}

#[fentry]
fn destroy_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, removed(ctx.arg(0)));
    0
}

#[fentry]
fn early_drop_fentry(_ctx: FEntryContext) -> i32 {
    early_drop_begins();
    0
}

#[fexit]
fn early_drop_fexit(_ctx: FExitContext) -> i32 {
    early_drop_ends();
    0
}

// Hooks: kprobe and kretprobe.

#[kprobe]
fn confirm_kprobe(ctx: ProbeContext) -> u32 {
    let Some(skb) = ctx.arg::<u64>(0) else {
        return 0;
    };
    match entry_of(skb) {
        Ok(ct) => lost(Loss::Call, calls::enter(&CONFIRMS, &ctx, [skb, ct])),
        Err(errno) => count_if_readable(&ctx, Err(errno)),
    }
    0
}

#[kretprobe]
fn confirm_kretprobe(ctx: RetProbeContext) -> u32 {
    let returned = calls::leave(&CONFIRMS, &ctx);
    lost(Loss::Call, returned.unreturned);
    lost(Loss::Call, u64::from(!returned.seen));
    let [skb, ct] = returned.arguments;
    // The same entry as before the call: the packet's own was inserted.
    if returned.seen && ctx.ret::<u32>() == NF_ACCEPT && entry_of(skb) == Ok(ct) {
        count_if_readable(&ctx, created(skb));
    }
    0
}

#[kprobe]
fn delete_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(ct), Some(portid)) = (ctx.arg(0), ctx.arg(1)) {
        note_deletion(ct, portid);
    }
    0
}

#[kprobe]
fn destroy_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(general) = ctx.arg(0) {
        count_if_readable(&ctx, removed(general));
    }
    0
}

#[kprobe]
fn early_drop_kprobe(_ctx: ProbeContext) -> u32 {
    early_drop_begins();
    0
}

#[kretprobe]
fn early_drop_kretprobe(_ctx: RetProbeContext) -> u32 {
    early_drop_ends();
    0
}

// Counting.

/// The entry that a packet carries; 0 where it carries none.
#[inline(always)]
fn entry_of(skb: u64) -> Result<u64, i32> {
    // SAFETY: an integer.
    let nfct = unsafe { read::<u64>(skb as *const u8, global(&OFFSETS).skb_nfct) }?;
    Ok(nfct & NFCT_PTRMASK)
}

#[inline(always)]
fn created(skb: u64) -> Result<(), i32> {
    let address = entry_of(skb)?;
    if address == 0 {
        return Ok(());
    }
    let entry = Entry(address);
    if entry.status()? & IPS_CONFIRMED == 0 {
        return Ok(());
    }
    let Some(totals) = totals() else {
        return Ok(());
    };
    if entry.protocol()? != IPPROTO_UDP {
        totals.created_other += 1;
        return Ok(());
    }
    let flow = entry.flow()?;
    totals.created += 1;
    count_flow(
        &flow,
        FlowCounts {
            created: 1,
            ..NO_COUNTS
        },
    );
    // SAFETY: takes no argument.
    let ns = unsafe { bpf_ktime_get_ns() };
    if BIRTHS.insert(address, Birth { ns }, 0).is_err() {
        lost(Loss::Birth, 1);
    }
    Ok(())
}

#[inline(always)]
fn clashed(skb: u64) -> Result<(), i32> {
    let address = entry_of(skb)?;
    if address != 0 && Entry(address).status()? & IPS_NAT_CLASH == 0 {
        let _full = CLASHES.insert(skb, 1, 0);
    }
    Ok(())
}

/// Whether the packet goes on with the entry of another. The look-up comes first:
/// it takes no lock, and clashes are rare.
#[inline(always)]
fn lost_a_clash(skb: u64) -> bool {
    CLASHES.get_ptr(skb).is_some() && CLASHES.remove(skb).is_ok()
}

/// `nf_ct_delete(ct, portid, report)`: the port of the netlink socket that asked for
/// it, 0 for the kernel itself.
#[inline(always)]
fn note_deletion(ct: u64, portid: u32) {
    if portid != 0 {
        let _full = DELETED.insert(ct, 1, 0);
    }
}

/// An entry that was never confirmed was in no table, and is not counted.
#[inline(always)]
fn removed(general: u64) -> Result<(), i32> {
    let address = general.wrapping_sub(u64::from(global(&OFFSETS).ct_general));
    let entry = Entry(address);
    let status = entry.status()?;
    if status & IPS_CONFIRMED == 0 {
        return Ok(());
    }
    // For every protocol: the address will be another entry's soon.
    let by_userspace = DELETED.get_ptr(address).is_some() && DELETED.remove(address).is_ok();
    let Some(totals) = totals() else {
        return Ok(());
    };
    if entry.protocol()? != IPPROTO_UDP {
        totals.removed_other += 1;
        return Ok(());
    }
    let flow = entry.flow()?;
    let state = if status & IPS_ASSURED != 0 {
        State::Assured
    } else if status & IPS_SEEN_REPLY != 0 {
        State::Replied
    } else {
        State::Unreplied
    };
    // SAFETY: takes no argument. The entry's own time stamps have 32 bits.
    let now = unsafe { bpf_jiffies64() } as u32;
    let timeout = entry.timeout()?;
    let end = if by_userspace {
        End::Userspace
    } else if now.wrapping_sub(timeout) as i32 >= 0 {
        End::Expired
    } else if EARLY_DROPS.get_ptr(context_id()).is_some() {
        End::EarlyDrop
    } else {
        End::Other
    };
    let wasted = match state {
        State::Assured => 0,
        State::Unreplied | State::Replied => u64::from(idle(now, timeout, entry.udp_timeout()?)),
    };

    totals.removed[end as usize][state as usize] += 1;
    totals.wasted_jiffies += wasted;
    count_flow(
        &flow,
        FlowCounts {
            removed: 1,
            wasted_jiffies: wasted,
            ..NO_COUNTS
        },
    );
    match BIRTHS.get_ptr(address) {
        Some(birth) => {
            // SAFETY: a value of the map; the helper takes no argument.
            let lived = unsafe { bpf_ktime_get_ns().saturating_sub((*birth).ns) };
            totals.lifetimes.record(lived, LIFETIME_UNIT_NS);
            let _gone = BIRTHS.remove(address);
        }
        None => lost(Loss::Lifetime, 1),
    }
    Ok(())
}

/// Jiffies since the last packet of an entry that is not assured: each of its
/// packets set the expiry to `udp_timeout` ahead.
#[inline(always)]
fn idle(now: u32, timeout: u32, udp_timeout: u32) -> u32 {
    let last_packet = timeout.wrapping_sub(udp_timeout);
    let idle = now.wrapping_sub(last_packet);
    // Negative: the timeout was shortened since, or a policy of its own applies.
    if (idle as i32) < 0 { 0 } else { idle }
}

#[inline(always)]
fn early_drop_begins() {
    let _full = EARLY_DROPS.insert(context_id(), 1, 0);
}

#[inline(always)]
fn early_drop_ends() {
    let _gone = EARLY_DROPS.remove(context_id());
}

/// A `struct nf_conn`, by its address.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    #[inline(always)]
    fn status(self) -> Result<u32, i32> {
        self.read(global(&OFFSETS).ct_status)
    }

    #[inline(always)]
    fn timeout(self) -> Result<u32, i32> {
        self.read(global(&OFFSETS).ct_timeout)
    }

    #[inline(always)]
    fn protocol(self) -> Result<u8, i32> {
        self.read(global(&OFFSETS).protocol)
    }

    #[inline(always)]
    fn udp_timeout(self) -> Result<u32, i32> {
        // SAFETY: an integer.
        unsafe { read(self.net()?, global(&OFFSETS).net_udp_timeout) }
    }

    #[inline(always)]
    fn flow(self) -> Result<Flow, i32> {
        let offsets = global(&OFFSETS);
        let port = u16::from_be(self.read(offsets.destination_port)?);
        let family = self.read(offsets.family)?;
        let mut source: [u8; 16] = self.read(offsets.source_address)?;
        if family == AF_INET {
            // The kernel clears the rest of a tuple, but a key must not rest on it.
            for byte in &mut source[4..] {
                *byte = 0;
            }
        }
        Ok(Flow {
            // SAFETY: an integer.
            netns: unsafe { read(self.net()?, offsets.net_inum) }?,
            family,
            port: if port < EPHEMERAL_PORT { port } else { 0 },
            source,
        })
    }

    #[inline(always)]
    fn net(self) -> Result<*const u8, i32> {
        Ok(self.read::<u64>(global(&OFFSETS).ct_net)? as *const u8)
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> Result<T, i32> {
        // SAFETY: integers and arrays of them only, see the callers.
        unsafe { read(self.0 as *const u8, offset) }
    }
}

// Maps.

const NO_COUNTS: FlowCounts = FlowCounts {
    created: 0,
    removed: 0,
    wasted_jiffies: 0,
};

#[inline(always)]
fn totals() -> Option<&'static mut Totals> {
    // SAFETY: this CPU's own value. A program is never entered twice on one CPU
    // (`bpf_prog.active`), and no two of these programs write the same field.
    TOTALS.get_ptr_mut(0).map(|totals| unsafe { &mut *totals })
}

/// Adds `counts` to what the map has for a flow.
#[inline(always)]
fn count_flow(flow: &Flow, counts: FlowCounts) {
    if add_to_flow(flow, &counts) || FLOWS.insert(flow, counts, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another CPU has just inserted it, or the map is out of free nodes.
    if !add_to_flow(flow, &counts) {
        lost(Loss::Flow, 1);
    }
}

#[inline(always)]
fn add_to_flow(flow: &Flow, counts: &FlowCounts) -> bool {
    let Some(sum) = FLOWS.get_ptr_mut(flow) else {
        return false;
    };
    // SAFETY: a value of the map.
    unsafe {
        add(&raw mut (*sum).created, counts.created);
        add(&raw mut (*sum).removed, counts.removed);
        add(&raw mut (*sum).wasted_jiffies, counts.wasted_jiffies);
    }
    true
}

#[inline(always)]
fn lost(loss: Loss, events: u64) {
    if events > 0
        && let Some(totals) = TOTALS.get_ptr_mut(0)
    {
        // SAFETY: a value of the map; several programs count here, so atomically.
        unsafe { add(&raw mut (*totals).lost[loss as usize], events) };
    }
}

#[inline(always)]
fn count_if_readable(ctx: &impl EbpfContext, counted: Result<(), i32>) {
    if let Err(errno) = counted {
        lost(Loss::Read, 1);
        if global(&VERBOSE) != 0 {
            warn!(
                ctx,
                "an entry of the conntrack table could not be read: error {}", errno
            );
        }
    }
}
