//! Counts UDP entries of the connection tracking table where the kernel makes and removes
//! them: once a flow, never once a packet.
//!
//! - Made: `__nf_conntrack_confirm` returns `NF_ACCEPT`. The packet may by then carry an
//!   entry that another packet had inserted first; that one is not counted again.
//! - Removed: `nf_ct_destroy` (`destroy_conntrack` on 5.10) runs once for each entry,
//!   for whatever reason, while nobody can reuse it yet. `nf_ct_delete` alone knows whether
//!   user space asked for it, so its probe remembers that.
//!
//! - Refused: `early_drop` finds nothing to evict, `__nf_conntrack_confirm` drops the packet, or
//!   `nf_ct_resolve_clash`, which that function calls, decides about it.
//!
//! All functions are in net/netfilter/nf_conntrack_core.c. The prototypes are those of
//! Linux 5.10.262, 6.1.176, 6.12.117 and 7.3.4, as Debian ships them; "all" means these four.

#![no_std]
#![no_main]

use core::sync::atomic::AtomicU64;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_jiffies64,
    macros::{fentry, fexit, kprobe, kretprobe, map},
    maps::{Array, HashMap, LruHashMap},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use aya_log_ebpf::warn;
use ebpf::{
    shared::{
        AddressCache, AddressSet, Part, PerCpu, SLOTS, Slot, add_atomic, add_exclusive,
        calls::{self, CallMap},
        context_id, get_or_insert, global,
        histogram::Histogram,
        now_ns, read, read_typed, untyped,
    },
    udp_conntrack::{
        ENTRY_WORDS, EPHEMERAL_PORT, End, Flow, FlowCounts, LIFETIME_UNIT_NS, Loss, Offsets,
        Refusal, RefusedFlow, State, Totals,
    },
};

// Of include/uapi/linux/netfilter.h.
const NF_DROP: u32 = 0;
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
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Not zero: the probes write to the agent's log what they could not read.
#[unsafe(no_mangle)]
static VERBOSE: u32 = 0;

#[map]
static TOTALS: PerCpu<Totals> = PerCpu::new();

/// The agent sets the size of this map and of `BIRTHS`.
#[map]
static FLOWS: LruHashMap<Flow, FlowCounts> = LruHashMap::with_max_entries(1, 0);

/// When entries were made (`CLOCK_MONOTONIC`, nanoseconds), by the address of the
/// `nf_conn`. The slab reuses addresses at once, so a removal takes its birth out, and a
/// new entry overwrites one left behind.
const BORN: AddressCache = AddressCache {
    slots: &RECENT_BIRTHS,
    rest: &BIRTHS,
};
#[map]
static RECENT_BIRTHS: Array<Slot> = Array::with_max_entries(SLOTS, 0);
#[map]
static BIRTHS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1, 0);

/// Refused connections by flow. Few flows are refused at a time, or all are.
#[map]
static REFUSALS: LruHashMap<RefusedFlow, u64> = LruHashMap::with_max_entries(1024, 0);

/// Packets (`sk_buff` addresses) that took over an equal entry in place of their own, or were
/// dropped for it.
const CLASHED: AddressSet = AddressSet {
    map: &CLASHES,
    count: &CLASH_COUNT,
};
#[map]
static CLASHES: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1024, 0);
static CLASH_COUNT: AtomicU64 = AtomicU64::new(0);

/// Contexts that are inside `early_drop`, with the address of the `struct net` that needs room.
#[map]
static EARLY_DROPS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Entries that user space has deleted and that are not destroyed yet.
const DELETED: AddressSet = AddressSet {
    map: &DELETIONS,
    count: &DELETION_COUNT,
};
#[map]
static DELETIONS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(4096, 0);
static DELETION_COUNT: AtomicU64 = AtomicU64::new(0);

#[map]
static CONFIRMS: CallMap = HashMap::with_max_entries(1024, 0);

/// What `nf_ct_resolve_clash` returned to the contexts that are inside `__nf_conntrack_confirm`.
/// The kprobes use it; the fentry programs know the packet.
#[map]
static CLASH_VERDICTS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1024, 0);

// Made.

/// All: `int __nf_conntrack_confirm(struct sk_buff *skb)`
#[fexit]
fn confirm_fexit(ctx: FExitContext) -> i32 {
    let skb: *const u8 = ctx.arg(0);
    let verdict: u32 = ctx.arg(1);
    if CLASHED.remove(skb as u64) {
        return 0;
    }
    let entry = entry_of_typed(skb);
    match verdict {
        NF_ACCEPT => count_if_readable(&ctx, created(entry)),
        NF_DROP => count_if_readable(&ctx, refused(entry, Refusal::NotInserted)),
        _ => {}
    }
    0
}

/// All: `int nf_ct_resolve_clash(struct sk_buff *skb, struct nf_conntrack_tuple_hash *h, u32
/// reply_hash)`, static. The packet goes on with the entry that was first, except where its
/// own could be inserted under `IPS_NAT_CLASH`.
#[fexit]
fn clash_fexit(ctx: FExitContext) -> i32 {
    let skb: *const u8 = ctx.arg(0);
    let verdict: u32 = ctx.arg(3);
    count_if_readable(&ctx, clashed(skb as u64, entry_of_typed(skb), verdict));
    0
}

/// As of [`clash_fexit`].
#[kretprobe]
fn clash_kretprobe(ctx: RetProbeContext) -> u32 {
    let _noted = CLASH_VERDICTS.insert(context_id(), ctx.ret::<u32>(), 0);
    0
}

/// As of [`confirm_fexit`].
#[kprobe]
fn confirm_kprobe(ctx: ProbeContext) -> u32 {
    let Some(skb) = ctx.arg::<u64>(0) else {
        return 0;
    };
    match entry_of(skb) {
        Ok(ct) => TOTALS.lost(Loss::Call, calls::enter(&CONFIRMS, &ctx, [skb, ct])),
        Err(errno) => count_if_readable(&ctx, Err(errno)),
    }
    0
}

/// As of [`confirm_fexit`].
#[kretprobe]
fn confirm_kretprobe(ctx: RetProbeContext) -> u32 {
    let returned = calls::leave(&CONFIRMS, &ctx);
    TOTALS.lost(Loss::Call, returned.unreturned);
    TOTALS.lost(Loss::Call, u64::from(!returned.seen));
    let [skb, ct] = returned.arguments;
    let clash = take_clash();
    if !returned.seen {
        return 0;
    }
    if let Some(verdict) = clash {
        count_if_readable(&ctx, refused(ct, clash_outcome(verdict)));
    }
    match ctx.ret::<u32>() {
        // The same entry as before the call: the packet's own was inserted.
        NF_ACCEPT if entry_of(skb) == Ok(ct) => count_if_readable(&ctx, created(ct)),
        NF_DROP if clash.is_none() => {
            count_if_readable(&ctx, refused(ct, Refusal::NotInserted));
        }
        _ => {}
    }
    0
}

// Removed.

/// All: `bool nf_ct_delete(struct nf_conn *ct, u32 portid, int report)`. `portid` is the
/// port of the netlink socket that asked for it, 0 for the kernel itself.
#[fentry]
fn delete_fentry(ctx: FEntryContext) -> i32 {
    deleted(ctx.arg(0), ctx.arg(1));
    0
}

/// As of [`delete_fentry`]. In Debian's 5.10 gcc has split the function, and the probe is at
/// `nf_ct_delete.part.0`.
#[kprobe]
fn delete_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(ct), Some(portid)) = (ctx.arg(0), ctx.arg(1)) {
        deleted(ct, portid);
    }
    0
}

/// - 5.10: `void destroy_conntrack(struct nf_conntrack *nfct)`, static
/// - 6.1, 6.12, 7.3: `void nf_ct_destroy(struct nf_conntrack *nfct)`
#[fentry]
fn destroy_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, removed(untyped(ctx.arg(0))));
    0
}

/// As of [`destroy_fentry`].
#[kprobe]
fn destroy_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(general) = ctx.arg(0) {
        count_if_readable(&ctx, removed(general));
    }
    0
}

/// All: `int early_drop(struct net *net, unsigned int hash)`, static
#[fentry]
fn early_drop_fentry(ctx: FEntryContext) -> i32 {
    early_drop_begins(untyped(ctx.arg(0)));
    0
}

/// As of [`early_drop_fentry`].
#[fexit]
fn early_drop_fexit(ctx: FExitContext) -> i32 {
    let evicted: u32 = ctx.arg(2);
    count_if_readable(&ctx, early_drop_ends(evicted));
    0
}

/// As of [`early_drop_fentry`].
#[kprobe]
fn early_drop_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(net) = ctx.arg(0) {
        early_drop_begins(net);
    }
    0
}

/// As of [`early_drop_fentry`].
#[kretprobe]
fn early_drop_kretprobe(ctx: RetProbeContext) -> u32 {
    count_if_readable(&ctx, early_drop_ends(ctx.ret::<u32>()));
    0
}

// Counting.

/// The address of the entry that a packet carries; 0 where it carries none.
#[inline(always)]
fn entry_of(skb: u64) -> Result<u64, i32> {
    // SAFETY: an integer.
    let nfct = unsafe { read::<u64>(skb as *const u8, global(&OFFSETS.skb_nfct)) }?;
    Ok(nfct & NFCT_PTRMASK)
}

/// The same of a packet whose type the verifier knows.
#[inline(always)]
fn entry_of_typed(skb: *const u8) -> u64 {
    // SAFETY: an integer.
    let nfct = unsafe { read_typed::<u64>(skb, global(&OFFSETS.skb_nfct)) };
    nfct & NFCT_PTRMASK
}

#[inline(always)]
fn created(address: u64) -> Result<(), i32> {
    if address == 0 {
        return Ok(());
    }
    let mut entry = Entry::unread();
    entry.read(address)?;
    if entry.status() & IPS_CONFIRMED == 0 {
        return Ok(());
    }
    let Some(totals) = TOTALS.get() else {
        return Ok(());
    };
    if entry.protocol() != IPPROTO_UDP {
        // SAFETY: this CPU's own value, and no other program writes this field.
        unsafe { add_exclusive(&raw mut (*totals).created_other, 1) };
        return Ok(());
    }
    let flow = entry.flow()?;
    // SAFETY: as above.
    unsafe { add_exclusive(&raw mut (*totals).created, 1) };
    count_flow(
        &flow,
        FlowCounts {
            created: 1,
            ..NO_COUNTS
        },
    );
    if !BORN.put(address, now_ns()) {
        TOTALS.lost(Loss::Birth, 1);
    }
    Ok(())
}

/// A packet that was dropped is marked, so that it is not counted as not inserted as well. One that
/// goes on is marked unless its own entry was inserted.
#[inline(always)]
fn clashed(skb: u64, address: u64, verdict: u32) -> Result<(), i32> {
    if address == 0 {
        return Ok(());
    }
    let mut entry = Entry::unread();
    entry.read(address)?;
    if verdict != NF_ACCEPT || entry.status() & IPS_NAT_CLASH == 0 {
        CLASHED.insert(skb);
    }
    count_refusal(&entry, clash_outcome(verdict))
}

#[inline(always)]
fn clash_outcome(verdict: u32) -> Refusal {
    if verdict == NF_ACCEPT {
        Refusal::ClashResolved
    } else {
        Refusal::ClashLost
    }
}

/// What `nf_ct_resolve_clash` returned inside the call that ends now.
#[inline(always)]
fn take_clash() -> Option<u32> {
    let context = context_id();
    let verdict = CLASH_VERDICTS.get_ptr(context)?;
    // SAFETY: a value of the map, which this context alone uses.
    let verdict = unsafe { *verdict };
    let _gone = CLASH_VERDICTS.remove(context);
    Some(verdict)
}

#[inline(always)]
fn refused(address: u64, refusal: Refusal) -> Result<(), i32> {
    if address == 0 {
        return Ok(());
    }
    let mut entry = Entry::unread();
    entry.read(address)?;
    count_refusal(&entry, refusal)
}

#[inline(always)]
fn count_refusal(entry: &Entry, refusal: Refusal) -> Result<(), i32> {
    count_refused(&RefusedFlow {
        flow: entry.flow()?,
        refusal: refusal as u16,
        protocol: u16::from(entry.protocol()),
    });
    Ok(())
}

#[inline(always)]
fn deleted(ct: u64, portid: u32) {
    if portid != 0 {
        DELETED.insert(ct);
    }
}

/// An entry that was never confirmed was in no table, and is not counted.
#[inline(always)]
fn removed(general: u64) -> Result<(), i32> {
    let address = general.wrapping_sub(u64::from(global(&OFFSETS.ct_general)));
    let mut entry = Entry::unread();
    entry.read(address)?;
    let status = entry.status();
    if status & IPS_CONFIRMED == 0 {
        return Ok(());
    }
    // For every protocol: the address will be another entry's soon.
    let by_userspace = DELETED.remove(address);
    let Some(totals) = TOTALS.get() else {
        return Ok(());
    };
    if entry.protocol() != IPPROTO_UDP {
        // SAFETY: this CPU's own value, and no other program writes this field.
        unsafe { add_exclusive(&raw mut (*totals).removed_other, 1) };
        return Ok(());
    }
    let flow = entry.flow()?;
    let state = state(status);
    // SAFETY: takes no argument. The entry's own time stamps have 32 bits.
    let now = unsafe { bpf_jiffies64() } as u32;
    let timeout = entry.timeout();
    let end = end(by_userspace, now, timeout);
    let wasted = match state {
        State::Assured => 0,
        State::Unreplied | State::Replied => u64::from(idle(now, timeout, entry.udp_timeout()?)),
    };

    // SAFETY: as above.
    unsafe {
        add_exclusive(&raw mut (*totals).removed[end as usize][state as usize], 1);
        add_exclusive(&raw mut (*totals).wasted_jiffies, wasted);
    }
    count_flow(
        &flow,
        FlowCounts {
            removed: 1,
            wasted_jiffies: wasted,
            ..NO_COUNTS
        },
    );
    count_lifetime(totals, address);
    Ok(())
}

/// What a flow has become, by the status of its entry.
#[inline(always)]
fn state(status: u32) -> State {
    if status & IPS_ASSURED != 0 {
        State::Assured
    } else if status & IPS_SEEN_REPLY != 0 {
        State::Replied
    } else {
        State::Unreplied
    }
}

/// How an entry ends that is removed now; both times are jiffies.
#[inline(always)]
fn end(by_userspace: bool, now: u32, timeout: u32) -> End {
    if by_userspace {
        End::Userspace
    } else if now.wrapping_sub(timeout) as i32 >= 0 {
        End::Expired
    } else if EARLY_DROPS.get_ptr(context_id()).is_some() {
        End::EarlyDrop
    } else {
        End::Other
    }
}

#[inline(always)]
fn count_lifetime(totals: *mut Totals, address: u64) {
    let born_ns = BORN.take(address);
    if born_ns == 0 {
        TOTALS.lost(Loss::Lifetime, 1);
        return;
    }
    let lived_ns = now_ns().saturating_sub(born_ns);
    // SAFETY: this CPU's own value, and no other program writes this field.
    unsafe { Histogram::record(&raw mut (*totals).lifetimes, lived_ns, LIFETIME_UNIT_NS) };
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
fn early_drop_begins(net: u64) {
    let _full = EARLY_DROPS.insert(context_id(), net, 0);
}

/// `evicted` is not 0 where an entry made room.
#[inline(always)]
fn early_drop_ends(evicted: u32) -> Result<(), i32> {
    let context = context_id();
    let Some(net) = EARLY_DROPS.get_ptr(context) else {
        return Ok(());
    };
    // SAFETY: a value of the map, which this context alone uses.
    let net = unsafe { *net } as *const u8;
    let _gone = EARLY_DROPS.remove(context);
    if evicted != 0 {
        return Ok(());
    }
    count_refused(&RefusedFlow {
        flow: Flow {
            netns: inum(net)?,
            family: 0,
            port: 0,
            source: [0; 16],
        },
        refusal: Refusal::TableFull as u16,
        protocol: 0,
    });
    Ok(())
}

/// The inode number of a network namespace, a `struct net`.
#[inline(always)]
fn inum(net: *const u8) -> Result<u32, i32> {
    // SAFETY: an integer.
    unsafe { read(net, global(&OFFSETS.net_inum)) }
}

/// What the probes need of a `struct nf_conn`.
struct Entry(Part<ENTRY_WORDS>);

impl Entry {
    #[inline(always)]
    const fn unread() -> Self {
        Self(Part::unread())
    }

    /// Reads the entry at an address. Nothing else may be called before.
    #[inline(always)]
    fn read(&mut self, address: u64) -> Result<(), i32> {
        self.0.read(address + u64::from(global(&OFFSETS.ct_part)))
    }

    #[inline(always)]
    fn status(&self) -> u32 {
        self.at(&OFFSETS.ct.status)
    }

    #[inline(always)]
    fn timeout(&self) -> u32 {
        self.at(&OFFSETS.ct.timeout)
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.at(&OFFSETS.ct.protocol)
    }

    #[inline(always)]
    fn udp_timeout(&self) -> Result<u32, i32> {
        // SAFETY: an integer.
        unsafe { read(self.net(), global(&OFFSETS.net_udp_timeout)) }
    }

    #[inline(always)]
    fn flow(&self) -> Result<Flow, i32> {
        let port = u16::from_be(self.at(&OFFSETS.ct.destination_port));
        let family = self.at(&OFFSETS.ct.family);
        let mut source: [u32; 4] = self.at(&OFFSETS.ct.source_address);
        if family == AF_INET {
            // The kernel clears the rest of a tuple, but a key must not depend on it.
            source = [source[0], 0, 0, 0];
        }
        Ok(Flow {
            netns: inum(self.net())?,
            family,
            port: if port < EPHEMERAL_PORT { port } else { 0 },
            // SAFETY: the same bytes.
            source: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(source) },
        })
    }

    #[inline(always)]
    fn net(&self) -> *const u8 {
        self.at::<u64>(&OFFSETS.ct.net) as *const u8
    }

    #[inline(always)]
    fn at<T: Copy>(&self, offset: &'static u32) -> T {
        // SAFETY: integers and arrays of them only, see above. The agent has checked their
        // alignment, and `read` comes first.
        unsafe { self.0.at(global(offset)) }
    }
}

// Maps.

const NO_COUNTS: FlowCounts = FlowCounts {
    created: 0,
    removed: 0,
    wasted_jiffies: 0,
};

/// Adds `counts` to those of a flow.
#[inline(always)]
fn count_flow(flow: &Flow, counts: FlowCounts) {
    let Some(sum) = get_or_insert(&FLOWS, flow, || NO_COUNTS) else {
        TOTALS.lost(Loss::Flow, 1);
        return;
    };
    // SAFETY: a value of the map. Other CPUs may count there too, so atomically.
    unsafe {
        add_any(&raw mut (*sum).created, counts.created);
        add_any(&raw mut (*sum).removed, counts.removed);
        add_any(&raw mut (*sum).wasted_jiffies, counts.wasted_jiffies);
    }
}

/// Counts one connection that was refused.
#[inline(always)]
fn count_refused(refused: &RefusedFlow) {
    if let Some(totals) = TOTALS.get() {
        let refusal = refused.refusal as usize;
        if refusal < Refusal::ALL.len() {
            // SAFETY: this CPU's own value, and no other program counts this refusal.
            unsafe { add_exclusive(&raw mut (*totals).refused[refusal], 1) };
        }
    }
    let Some(sum) = get_or_insert(&REFUSALS, refused, || 0) else {
        TOTALS.lost(Loss::Flow, 1);
        return;
    };
    // SAFETY: a value of the map. Other CPUs may count there too, so atomically.
    unsafe { add_atomic(sum, 1) };
}

/// Adds what is not zero: most is, and an atomic addition is not free.
///
/// # Safety
///
/// See [`add_atomic`].
#[inline(always)]
unsafe fn add_any(counter: *mut u64, value: u64) {
    if value != 0 {
        // SAFETY: the caller's promise.
        unsafe { add_atomic(counter, value) };
    }
}

#[inline(always)]
fn count_if_readable(ctx: &impl EbpfContext, counted: Result<(), i32>) {
    if let Err(errno) = counted {
        TOTALS.lost(Loss::Read, 1);
        if global(&VERBOSE) != 0 {
            warn!(
                ctx,
                "an entry of the conntrack table could not be read: error {}", errno
            );
        }
    }
}
