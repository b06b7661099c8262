//! Counts what becomes of TCP SYNs that meet an IPVS connection of their tuple:
//! where IPVS lets go of that connection, never once a packet.
//!
//! - Let go: `ip_vs_conn_expire_now` (ip_vs_conn.c) has two callers in the packet
//!   path (ip_vs_core.c), and one in the daemon that receives connections from
//!   another director. A caller in the packet path has just cleared
//!   `IP_VS_CONN_F_NFCT`, unless the packet belongs to a conntrack entry that is
//!   confirmed, and then it drops the packet.
//! - Connected: `ip_vs_schedule` returns the new connection.
//! - Kept: a packet of a connection whose destination is drained or gone makes no
//!   call of its own, so the packet hook is watched, but only while the agent has
//!   reason to (see [`looked_up`]).

#![no_std]
#![no_main]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "what is not borrowed is copied to the stack, which has 512 bytes"
)]

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_current_comm, bpf_probe_read_kernel_buf},
    macros::{fentry, fexit, kprobe, kretprobe, map},
    maps::{Array, HashMap, LruHashMap, RingBuf},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use aya_log_ebpf::warn;
use ebpf::{
    ipvs_conn_reuse::{
        CHANGES_BYTES, Client, ClientCounts, DELAY_UNIT_NS, Fate, Flow, FlowCounts, IpvsSettings,
        Loss, Number, Offsets, Outcome, Reason, SPECIMENS, Specimen, SpecimenOffsets, SynCounts,
        Totals, Tuple, Waiting,
    },
    shared::{
        PerCpu, add_atomic,
        calls::{self, CallMap},
        context_id, get_or_insert, global,
        histogram::Histogram,
        now_ns, read, value_of,
    },
};

const IPPROTO_TCP: u16 = 6;
const AF_INET: u8 = 2;
/// `NF_DROP` of include/uapi/linux/netfilter.h.
const NF_DROP: u32 = 0;

// Flags of a connection, include/uapi/linux/ip_vs.h and include/net/ip_vs.h.
const CONN_F_TEMPLATE: u32 = 0x1000;
const CONN_F_NFCT: u32 = 1 << 16;

/// `IP_VS_DEST_F_AVAILABLE`, later `IP_VS_DEST_CF_AVAILABLE`.
const AVAILABLE: u8 = 1;
/// `IP_VS_HDR_ICMP`: the packet speaks of the connection, and is not of it.
const HEADER_OF_ICMP: u32 = 2;

// States of a TCP connection, `enum` in include/net/ip_vs.h.
const STATE_FIN_WAIT: u16 = 4;
const STATE_TIME_WAIT: u16 = 5;
const STATE_CLOSE: u16 = 6;

/// How the threads are called that receive connections (ip_vs_sync.c).
const SYNC_DAEMON: [u8; 6] = *b"ipvs-b";

/// What follows a packet in its own context comes sooner than this; the next SYN of
/// a client comes later.
const AT_ONCE_NS: u64 = 500_000_000;
/// A client repeats its SYN after one second at the earliest (`TCP_TIMEOUT_INIT`).
const REPEATED_NS: u64 = 900_000_000;

/// Where the flags lie in a TCP header, bytes.
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Set by the agent from the types of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Set by the agent where [`OFFSETS`] is a layout that was recorded.
#[unsafe(no_mangle)]
static SPECIMEN_OFFSETS: SpecimenOffsets = SpecimenOffsets::UNKNOWN;

/// Not zero: the probes say in the agent's log what they could not read.
#[unsafe(no_mangle)]
static VERBOSE: u32 = 0;

#[map]
static TOTALS: PerCpu<Totals> = PerCpu::new();

/// The agent sets the size of this map and of the next two.
#[map]
static FLOWS: LruHashMap<Flow, FlowCounts> = LruHashMap::with_max_entries(1, 0);

#[map]
static CLIENTS: LruHashMap<Client, ClientCounts> = LruHashMap::with_max_entries(1, 0);

/// Clients without a connection yet. What is put in stays until the client connects
/// or the agent sweeps it out, so that their number is known.
#[map]
static WAITING: HashMap<Tuple, Waiting> = HashMap::with_max_entries(1, 0);

/// By [`Number`].
#[map]
static NUMBERS: Array<u64> = Array::with_max_entries(Number::COUNT, 0);

/// Not zero while both ends of a look-up and the packet hook are probed.
#[map]
static WATCHING: Array<u64> = Array::with_max_entries(1, 0);

/// An entry for each destination that was drained or removed, where IPVS keeps its
/// connections.
#[map]
static CHANGES: RingBuf = RingBuf::with_byte_size(CHANGES_BYTES, 0);

/// SYNs under way through the packet hook, by context.
#[map]
static NOTES: LruHashMap<u64, Note> = LruHashMap::with_max_entries(1024, 0);

#[map]
static LOOKUPS: CallMap = HashMap::with_max_entries(1024, 0);

/// Calls of `ip_vs_conn_new` under way, by context.
#[map]
static NEW_CALLS: LruHashMap<u64, NewCall> = LruHashMap::with_max_entries(1024, 0);

/// See [`unknown`].
#[map]
static FORGOTTEN: PerCpu<[u32; 2]> = PerCpu::new();

/// By the address of the connection.
#[map]
static TAKEN: HashMap<u64, Specimen> = HashMap::with_max_entries(SPECIMENS, 0);

/// Room to make one in: it is too big for the stack.
#[map]
static SPECIMEN: PerCpu<Specimen> = PerCpu::new();

/// The arguments of `ip_vs_conn_new` that are registers.
#[derive(Clone, Copy)]
#[repr(C)]
struct NewCall {
    parameters: u64,
    destination: u64,
    dest: u64,
    destination_family: u32,
    destination_port: u32,
    flags: u32,
    unused: u32,
}

/// A SYN of a connection whose destination is drained or gone.
#[derive(Clone, Copy)]
#[repr(C)]
struct Note {
    connection: u64,
    gone: u64,
}

// Hooks: fentry and fexit.

#[fentry]
fn expire_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, let_go(Connection(ctx.arg(0))));
    0
}

/// `ip_vs_schedule(svc, skb, pd, ignored, iph)`
#[fexit]
fn schedule_fexit(ctx: FExitContext) -> i32 {
    connected(&ctx, ctx.arg(5));
    0
}

/// `ip_vs_conn_in_get_proto(ipvs, af, skb, iph)`
#[fexit]
fn lookup_fexit(ctx: FExitContext) -> i32 {
    let found = Connection(ctx.arg(4));
    count_if_readable(&ctx, looked_up(ctx.arg(2), ctx.arg(3), found));
    0
}

/// `ip_vs_in_hook(priv, skb, state)`
#[fexit]
fn hook_fexit(ctx: FExitContext) -> i32 {
    count_if_readable(&ctx, passed(ctx.arg(3)));
    0
}

/// `__ip_vs_del_dest(ipvs, dest, cleanup)`
#[fentry]
fn removal_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, removed(ctx.arg(0)));
    0
}

/// `ip_vs_edit_dest(svc, udest)`
#[fentry]
fn edit_fentry(ctx: FEntryContext) -> i32 {
    count_if_readable(&ctx, edited(ctx.arg(0), ctx.arg(1)));
    0
}

// Hooks: kprobe and kretprobe.

#[kprobe]
fn expire_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(connection) = ctx.arg(0) {
        count_if_readable(&ctx, let_go(Connection(connection)));
    }
    0
}

#[kretprobe]
fn schedule_kretprobe(ctx: RetProbeContext) -> u32 {
    connected(&ctx, ctx.ret());
    0
}

#[kprobe]
fn lookup_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(header)) = (ctx.arg(2), ctx.arg(3)) {
        TOTALS.lost(Loss::Call, calls::enter(&LOOKUPS, &ctx, [skb, header]));
    }
    0
}

#[kretprobe]
fn lookup_kretprobe(ctx: RetProbeContext) -> u32 {
    let returned = calls::leave(&LOOKUPS, &ctx);
    // While the probes come and go one of both is seen alone.
    if is_watching() {
        TOTALS.lost(Loss::Call, returned.unreturned);
        TOTALS.lost(Loss::Call, u64::from(!returned.seen));
    }
    if returned.seen {
        let [skb, header] = returned.arguments;
        count_if_readable(&ctx, looked_up(skb, header, Connection(ctx.ret())));
    }
    0
}

#[kretprobe]
fn hook_kretprobe(ctx: RetProbeContext) -> u32 {
    count_if_readable(&ctx, passed(ctx.ret()));
    0
}

#[kprobe]
fn removal_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(ipvs) = ctx.arg(0) {
        count_if_readable(&ctx, removed(ipvs));
    }
    0
}

#[kprobe]
fn edit_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(service), Some(wanted)) = (ctx.arg(0), ctx.arg(1)) {
        count_if_readable(&ctx, edited(service, wanted));
    }
    0
}

/// `ip_vs_conn_new(p, dest_af, daddr, dport, flags, dest, fwmark)`
#[kprobe]
fn new_kprobe(ctx: ProbeContext) -> u32 {
    let (Some(parameters), Some(family), Some(destination), Some(port), Some(flags), Some(dest)) = (
        ctx.arg::<u64>(0),
        ctx.arg::<u32>(1),
        ctx.arg::<u64>(2),
        ctx.arg::<u16>(3),
        ctx.arg::<u32>(4),
        ctx.arg::<u64>(5),
    ) else {
        return 0;
    };
    let call = NewCall {
        parameters,
        destination,
        dest,
        destination_family: family,
        destination_port: u32::from(port),
        flags,
        unused: 0,
    };
    let _full = NEW_CALLS.insert(context_id(), call, u64::from(BPF_ANY));
    0
}

#[kretprobe]
fn new_kretprobe(ctx: RetProbeContext) -> u32 {
    let context = context_id();
    let connection: u64 = ctx.ret();
    let Some(call) = NEW_CALLS.get_ptr(context) else {
        return 0;
    };
    // SAFETY: a value of the map, used by this context alone.
    let call = unsafe { *call };
    let _gone = NEW_CALLS.remove(context);
    // One without a destination shows too little, and a template is none.
    if connection != 0 && call.dest != 0 && call.flags & CONN_F_TEMPLATE == 0 {
        count_if_readable(&ctx, taken(&call, connection));
    }
    0
}

// What happened.

/// IPVS lets go of a connection because of the packet at hand.
#[inline(always)]
fn let_go(connection: Connection) -> Result<(), i32> {
    let _unnoted = NOTES.remove(context_id());
    let flags = connection.flags()?;
    if connection.protocol()? != IPPROTO_TCP || flags & CONN_F_TEMPLATE != 0 || in_sync_daemon() {
        return Ok(());
    }
    // All that may fail comes before what has many ways.
    let destination = connection.destination()?;
    let settings = connection.settings()?;
    let state = connection.state()?;
    let flow = connection.flow()?;
    let tuple = connection.tuple(flow.netns)?;
    let Some(reason) = reason(state, destination, settings) else {
        return Ok(());
    };
    // To a destination that is gone any packet makes the call, else SYNs alone.
    let is_syn = destination.available || settings.expire_nodest_conn == 0;
    let fate = match (flags & CONN_F_NFCT != 0, is_syn) {
        (true, true) => Fate::Dropped,
        (true, false) => Fate::Unsure,
        (false, true) if settings.conntrack != 0 => Fate::Rescheduled,
        (false, _) => Fate::Unmarked,
    };
    let Some([fate, reason]) = unknown([fate as u32, reason as u32]) else {
        return Ok(());
    };
    // Those of them that are outcomes have their numbers.
    if fate == Outcome::Rescheduled as u32 || fate == Outcome::Dropped as u32 {
        count(fate, reason, &flow, &tuple, settings);
    }
    await_connection(&tuple, flow, fate, reason, settings);
    Ok(())
}

/// The verifier follows a number that it knows along all that is done with it: five reasons and
/// four fates are as long to it as twenty programs. What comes out of a map it does not know.
#[inline(always)]
fn unknown(numbers: [u32; 2]) -> Option<[u32; 2]> {
    let place = FORGOTTEN.get()?;
    // SAFETY: this CPU's own value; only this program writes it, and it is never entered twice on
    // one CPU.
    unsafe {
        place.write_volatile(numbers);
        Some(place.read_volatile())
    }
}

/// Which branch of the packet path has let go of a connection, in the order in which
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

/// A client has a new connection. Almost none of them waited for one, so it is asked
/// first whether anybody does.
#[inline(always)]
fn connected(ctx: &impl EbpfContext, connection: u64) {
    if connection != 0 && somebody_waits() {
        count_if_readable(ctx, waited(Connection(connection)));
    }
}

#[inline(always)]
fn waited(connection: Connection) -> Result<(), i32> {
    if connection.protocol()? != IPPROTO_TCP {
        return Ok(());
    }
    let tuple = connection.tuple(connection.netns()?)?;
    let Some(found) = WAITING.get_ptr(&tuple) else {
        return Ok(());
    };
    // SAFETY: a value of the map.
    let waiting = unsafe { *found };
    // The agent may sweep it out at the same time: one of both has it.
    if WAITING.remove(&tuple).is_err() {
        return Ok(());
    }
    count_waiting(u64::MAX);
    let waited_ns = now_ns().saturating_sub(waiting.since_ns);
    let at_once = waiting.context == context_id() && waited_ns < AT_ONCE_NS;
    let repeated = waited_ns > REPEATED_NS;
    let (now, dropped) = match (waiting.fate, at_once, repeated) {
        (RESCHEDULED, _, _) => (None, false),
        (DROPPED, _, _) => (None, true),
        (UNMARKED, true, _) => (Some(Outcome::Rescheduled), false),
        (_, _, true) => (Some(Outcome::Dropped), true),
        // It was no SYN that was dropped, or nothing is known.
        _ => return Ok(()),
    };
    if let Some(outcome) = now {
        let reason = u32::from(waiting.reason);
        count(
            outcome as u32,
            reason,
            &waiting.flow,
            &tuple,
            waiting.settings,
        );
    }
    if dropped && let Some(totals) = TOTALS.get() {
        // SAFETY: this CPU's own value; only this program writes the field, and it is
        // never entered twice on one CPU.
        unsafe { Histogram::record(&raw mut (*totals).delays, waited_ns, DELAY_UNIT_NS) };
    }
    name_new_destination(&waiting.flow, connection)
}

const RESCHEDULED: u8 = Fate::Rescheduled as u8;
const DROPPED: u8 = Fate::Dropped as u8;
const UNMARKED: u8 = Fate::Unmarked as u8;

/// A packet's connection was found. Attached only while some destination is drained
/// or gone whose connections IPVS is told to keep.
#[inline(always)]
fn looked_up(skb: u64, header: u64, found: Connection) -> Result<(), i32> {
    if found.0 == 0 || !is_watching() || found.protocol()? != IPPROTO_TCP {
        return Ok(());
    }
    let destination = found.destination()?;
    if destination.weight != 0 && destination.available {
        return Ok(());
    }
    if is_syn(skb, header, found)? {
        let note = Note {
            connection: found.0,
            gone: u64::from(!destination.available),
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

/// Whether a packet opens a connection. Where its ports are not the connection's,
/// the header is not where it is thought to be, and nothing is said.
#[inline(always)]
fn is_syn(skb: u64, header: u64, connection: Connection) -> Result<bool, i32> {
    let offsets = global(&OFFSETS);
    let header = header as *const u8;
    // SAFETY: integers.
    let (flags, length, protocol, data) = unsafe {
        (
            read::<u32>(header, offsets.header_flags)?,
            read::<u32>(header, offsets.header_length)?,
            read::<u16>(header, offsets.header_protocol)?,
            read::<u64>(skb as *const u8, offsets.skb_data)?,
        )
    };
    if flags & HEADER_OF_ICMP != 0 || protocol != IPPROTO_TCP {
        return Ok(false);
    }
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

/// A packet has passed the hook. One that is still noted has let nothing go.
#[inline(always)]
fn passed(verdict: u32) -> Result<(), i32> {
    let context = context_id();
    let Some(note) = NOTES.get_ptr(context) else {
        return Ok(());
    };
    // SAFETY: a value of the map, used by this context alone.
    let note = unsafe { *note };
    let _gone = NOTES.remove(context);
    // The hook has put its reference down, but a connection is freed after a grace
    // period, and its timeout is far.
    let connection = Connection(note.connection);
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

/// Takes a specimen, unless there are enough.
#[inline(always)]
fn taken(call: &NewCall, connection: u64) -> Result<(), i32> {
    let Some(specimen) = SPECIMEN.get() else {
        return Ok(());
    };
    // SAFETY: this CPU's own value; a program is never entered twice on one CPU.
    let specimen = unsafe { &mut *specimen };
    let offsets = global(&SPECIMEN_OFFSETS);
    let parameters = call.parameters as *const u8;
    specimen.dest_pointer = call.dest;
    specimen.destination_family = call.destination_family;
    specimen.destination_port = call.destination_port;
    specimen.flags = call.flags;
    // SAFETY: integers and arrays of bytes.
    unsafe {
        let ipvs = read::<u64>(parameters, offsets.ipvs)? as *const u8;
        let client = read::<u64>(parameters, offsets.client)?;
        let virtual_address = read::<u64>(parameters, offsets.virtual_address)?;
        let net = read::<u64>(ipvs, global(&OFFSETS).ipvs_net)? as *const u8;
        specimen.netns = read(net, global(&OFFSETS).net_inum)?;
        let settings = ipvs.wrapping_add(offsets.settings as usize);
        bpf_probe_read_kernel_buf(call.destination as *const u8, &mut specimen.destination)?;
        bpf_probe_read_kernel_buf(client as *const u8, &mut specimen.client)?;
        bpf_probe_read_kernel_buf(virtual_address as *const u8, &mut specimen.virtual_address)?;
        bpf_probe_read_kernel_buf(parameters, &mut specimen.parameters)?;
        bpf_probe_read_kernel_buf(connection as *const u8, &mut specimen.connection)?;
        bpf_probe_read_kernel_buf(call.dest as *const u8, &mut specimen.dest)?;
        bpf_probe_read_kernel_buf(settings, &mut specimen.settings)?;
    }
    let _enough = TAKEN.insert(connection, &*specimen, u64::from(BPF_NOEXIST));
    Ok(())
}

/// A destination is removed from its service.
#[inline(always)]
fn removed(ipvs: u64) -> Result<(), i32> {
    // SAFETY: the low byte of an integer whose values are small.
    let lets_go: u8 = unsafe { read(ipvs as *const u8, global(&OFFSETS).expire_nodest_conn) }?;
    if lets_go == 0 {
        // Where there is no room the agent has not looked yet, and will find the others.
        let _full = CHANGES.output::<u64>(0, 0);
    }
    Ok(())
}

/// A destination is to be changed.
#[inline(always)]
fn edited(service: u64, wanted: u64) -> Result<(), i32> {
    let offsets = global(&OFFSETS);
    // SAFETY: integers.
    let (weight, ipvs) = unsafe {
        (
            read::<u32>(wanted as *const u8, offsets.wanted_weight)?,
            read::<u64>(service as *const u8, offsets.service_ipvs)?,
        )
    };
    if weight != 0 {
        return Ok(());
    }
    removed(ipvs)
}

/// The daemon replaces connections that another director has made elsewhere. What
/// interrupts it is taken for it as well, which is rare enough.
#[inline(always)]
fn in_sync_daemon() -> bool {
    match bpf_get_current_comm() {
        Ok(name) => name[..SYNC_DAEMON.len()] == SYNC_DAEMON,
        Err(_) => false,
    }
}

// What is read.

/// A `struct ip_vs_conn`, by its address.
#[derive(Clone, Copy)]
struct Connection(u64);

/// What is read of a `struct ip_vs_dest`.
#[derive(Clone, Copy)]
struct Destination {
    weight: u32,
    available: bool,
}

impl Connection {
    #[inline(always)]
    fn flags(self) -> Result<u32, i32> {
        self.read(global(&OFFSETS).flags)
    }

    #[inline(always)]
    fn state(self) -> Result<u16, i32> {
        self.read(global(&OFFSETS).state)
    }

    #[inline(always)]
    fn protocol(self) -> Result<u16, i32> {
        self.read(global(&OFFSETS).protocol)
    }

    #[inline(always)]
    fn client_port(self) -> Result<u16, i32> {
        Ok(u16::from_be(self.read(global(&OFFSETS).client_port)?))
    }

    /// A connection without one is treated as IPVS does: like one that is well.
    #[inline(always)]
    fn destination(self) -> Result<Destination, i32> {
        let offsets = global(&OFFSETS);
        let dest = self.read::<u64>(offsets.dest)? as *const u8;
        if dest.is_null() {
            return Ok(Destination {
                weight: 1,
                available: true,
            });
        }
        // SAFETY: integers.
        unsafe {
            Ok(Destination {
                weight: read(dest, offsets.dest_weight)?,
                available: read::<u8>(dest, offsets.dest_available)? & AVAILABLE != 0,
            })
        }
    }

    #[inline(always)]
    fn settings(self) -> Result<IpvsSettings, i32> {
        let offsets = global(&OFFSETS);
        let ipvs = self.ipvs()?;
        // SAFETY: the low bytes of integers whose values are small.
        unsafe {
            Ok(IpvsSettings {
                conn_reuse_mode: read(ipvs, offsets.conn_reuse_mode)?,
                expire_nodest_conn: read(ipvs, offsets.expire_nodest_conn)?,
                conntrack: read(ipvs, offsets.conntrack)?,
                expire_quiescent_template: read(ipvs, offsets.expire_quiescent_template)?,
            })
        }
    }

    #[inline(always)]
    fn ipvs(self) -> Result<*const u8, i32> {
        Ok(self.read::<u64>(global(&OFFSETS).ipvs)? as *const u8)
    }

    #[inline(always)]
    fn netns(self) -> Result<u32, i32> {
        let offsets = global(&OFFSETS);
        // SAFETY: integers.
        unsafe {
            let net: u64 = read(self.ipvs()?, offsets.ipvs_net)?;
            read(net as *const u8, offsets.net_inum)
        }
    }

    #[inline(always)]
    fn tuple(self, netns: u32) -> Result<Tuple, i32> {
        let offsets = global(&OFFSETS);
        let family: u8 = self.read(offsets.family)?;
        Ok(Tuple {
            netns,
            family: u16::from(family),
            client_port: self.client_port()?,
            virtual_port: self.port(offsets.virtual_port)?,
            unused: 0,
            client: self.address(offsets.client, family)?,
            virtual_address: self.address(offsets.virtual_address, family)?,
        })
    }

    #[inline(always)]
    fn flow(self) -> Result<Flow, i32> {
        let offsets = global(&OFFSETS);
        let family: u8 = self.read(offsets.family)?;
        let destination_family: u8 = self.read(offsets.destination_family)?;
        Ok(Flow {
            netns: self.netns()?,
            family: u16::from(family),
            destination_family: u16::from(destination_family),
            virtual_port: self.port(offsets.virtual_port)?,
            destination_port: self.port(offsets.destination_port)?,
            virtual_address: self.address(offsets.virtual_address, family)?,
            destination: self.address(offsets.destination, destination_family)?,
        })
    }

    #[inline(always)]
    fn port(self, offset: u32) -> Result<u16, i32> {
        Ok(u16::from_be(self.read(offset)?))
    }

    #[inline(always)]
    fn address(self, offset: u32, family: u8) -> Result<[u8; 16], i32> {
        if family != AF_INET {
            return self.read(offset);
        }
        // The kernel clears the rest, but a key must not rest on it.
        let mut address = [0; 16];
        let short: [u8; 4] = self.read(offset)?;
        address[..4].copy_from_slice(&short);
        Ok(address)
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: u32) -> Result<T, i32> {
        // SAFETY: integers and arrays of them only, see the callers.
        unsafe { read(self.0 as *const u8, offset) }
    }
}

// Maps.

/// Counts a SYN, in all and under the names of those whom it concerns. By the numbers of an
/// [`Outcome`] and a [`Reason`].
#[inline(always)]
fn count(outcome: u32, reason: u32, flow: &Flow, tuple: &Tuple, settings: IpvsSettings) {
    let (outcome, reason) = (outcome as usize, reason as usize);
    if outcome >= Outcome::ALL.len() || reason >= Reason::ALL.len() {
        return;
    }
    if let Some(totals) = TOTALS.get() {
        // SAFETY: a value of the map; several programs count here, so atomically.
        unsafe { add_atomic(&raw mut (*totals).syns[outcome][reason], 1) };
    }
    count_flow(outcome, flow, settings);
    let client = Client {
        netns: tuple.netns,
        family: tuple.family,
        unused: 0,
        address: tuple.client,
    };
    count_client(outcome, &client);
}

#[inline(always)]
fn count_flow(outcome: usize, flow: &Flow, settings: IpvsSettings) {
    let nothing = FlowCounts {
        syns: NO_SYNS,
        new_destination: [0; 16],
        new_family: 0,
        new_port: 0,
        settings,
    };
    let Some(sum) = get_or_insert(&FLOWS, flow, nothing) else {
        TOTALS.lost(Loss::Name, 1);
        return;
    };
    // SAFETY: a value of the map.
    unsafe {
        add_atomic(&raw mut (*sum).syns[outcome], 1);
        (*sum).settings = settings;
    }
}

#[inline(always)]
fn count_client(outcome: usize, client: &Client) {
    let Some(sum) = get_or_insert(&CLIENTS, client, ClientCounts { syns: NO_SYNS }) else {
        TOTALS.lost(Loss::Name, 1);
        return;
    };
    // SAFETY: a value of the map.
    unsafe { add_atomic(&raw mut (*sum).syns[outcome], 1) };
}

const NO_SYNS: SynCounts = [0; Outcome::ALL.len()];

/// Two CPUs may write at once, and then parts of both stand there; it is for people.
#[inline(always)]
fn name_new_destination(flow: &Flow, connection: Connection) -> Result<(), i32> {
    let offsets = global(&OFFSETS);
    let family: u8 = connection.read(offsets.destination_family)?;
    let address = connection.address(offsets.destination, family)?;
    let port = connection.port(offsets.destination_port)?;
    if let Some(sum) = FLOWS.get_ptr_mut(flow) {
        // SAFETY: a value of the map.
        unsafe {
            (*sum).new_destination = address;
            (*sum).new_family = u16::from(family);
            (*sum).new_port = port;
        }
    }
    Ok(())
}

/// Remembers the first SYN for which a client waits. What was remembered of a packet
/// that may have been no SYN makes room for one that was.
#[inline(always)]
fn await_connection(tuple: &Tuple, flow: Flow, fate: u32, reason: u32, settings: IpvsSettings) {
    let waiting = Waiting {
        since_ns: now_ns(),
        context: context_id(),
        flow,
        fate: fate as u8,
        reason: reason as u8,
        settings,
        unused: [0; 6],
    };
    match WAITING.get_ptr(tuple) {
        // SAFETY: a value of the map.
        Some(first) if unsafe { (*first).fate } == DROPPED => {}
        Some(_) => {
            let _gone = WAITING.insert(tuple, waiting, u64::from(BPF_ANY));
        }
        None => match WAITING.insert(tuple, waiting, u64::from(BPF_NOEXIST)) {
            Ok(()) => count_waiting(1),
            Err(_) => TOTALS.lost(Loss::Waiting, 1),
        },
    }
}

#[inline(always)]
fn count_waiting(change: u64) {
    if let Some(number) = NUMBERS.get_ptr_mut(Number::Entered as u32) {
        // SAFETY: a value of the map.
        unsafe { add_atomic(number, change) };
    }
}

#[inline(always)]
fn somebody_waits() -> bool {
    let (Some(entered), Some(swept)) = (
        value_of(&NUMBERS, Number::Entered as u32),
        value_of(&NUMBERS, Number::Swept as u32),
    ) else {
        return false;
    };
    entered != swept
}

#[inline(always)]
fn is_watching() -> bool {
    value_of(&WATCHING, 0).is_some_and(|watching| watching != 0)
}

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
