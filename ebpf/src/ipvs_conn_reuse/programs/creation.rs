//! IPVS makes a connection: its memory, beside the arguments it was made of, shows whether
//! a recorded layout is that of the running kernel.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_probe_read_kernel_buf,
    macros::{kprobe, kretprobe, map},
    maps::{HashMap, LruHashMap},
    programs::{ProbeContext, RetProbeContext},
};
use ebpf::{
    ipvs_conn_reuse::{SPECIMENS, Specimen, SpecimenOffsets},
    shared::{PerCpu, context_id, global, read},
};

use super::{CONN_F_TEMPLATE, connection::netns};
use crate::count_if_readable;

/// Set by the agent where the offsets are a layout that was recorded.
#[unsafe(no_mangle)]
static SPECIMEN_OFFSETS: SpecimenOffsets = SpecimenOffsets::UNKNOWN;

/// Calls of `ip_vs_conn_new` under way, by context.
#[map]
static NEW_CALLS: LruHashMap<u64, NewCall> = LruHashMap::with_max_entries(1024, 0);

/// By the address of the connection.
#[map]
static TAKEN: HashMap<u64, Specimen> = HashMap::with_max_entries(SPECIMENS, 0);

/// Room to make one in: it is too big for the stack.
#[map]
static SPECIMEN: PerCpu<Specimen> = PerCpu::new();

/// The arguments of `ip_vs_conn_new` that are in registers.
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

/// All: `struct ip_vs_conn *ip_vs_conn_new(const struct ip_vs_conn_param *p, int dest_af, const
/// union nf_inet_addr *daddr, __be16 dport, unsigned int flags, struct ip_vs_dest *dest, __u32
/// fwmark)`, ip_vs_conn.c
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

/// As of [`new_kprobe`].
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
    // A connection without a destination shows too little, and a template is none.
    if connection != 0 && call.dest != 0 && call.flags & CONN_F_TEMPLATE == 0 {
        count_if_readable(&ctx, take(&call, connection));
    }
    0
}

/// Takes a specimen, unless there are enough.
#[inline(always)]
fn take(call: &NewCall, connection: u64) -> Result<(), i32> {
    let Some(specimen) = SPECIMEN.get() else {
        return Ok(());
    };
    // SAFETY: this CPU's own value, which only this program uses: the kernel does not enter it
    // again on a CPU where it is running.
    let specimen = unsafe { &mut *specimen };
    let parameters = call.parameters as *const u8;
    specimen.dest_pointer = call.dest;
    specimen.destination_family = call.destination_family;
    specimen.destination_port = call.destination_port;
    specimen.flags = call.flags;
    // SAFETY: integers and arrays of bytes.
    unsafe {
        let ipvs = read::<u64>(parameters, global(&SPECIMEN_OFFSETS.ipvs))? as *const u8;
        let client = read::<u64>(parameters, global(&SPECIMEN_OFFSETS.client))?;
        let virtual_address = read::<u64>(parameters, global(&SPECIMEN_OFFSETS.virtual_address))?;
        specimen.netns = netns(ipvs)?;
        let settings = ipvs.wrapping_add(global(&SPECIMEN_OFFSETS.settings) as usize);
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
