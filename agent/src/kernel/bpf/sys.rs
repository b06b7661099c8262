//! The bpf(2) and perf_event_open(2) calls behind loading and attaching.
//!
//! aya's loader parses the BTF of vmlinux before it can be told not to, knows no BTF of
//! modules, and keeps the descriptors of its links to itself.

use std::{
    ffi::{CStr, CString},
    fs, io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::Context as _;
use aya::Pod;
use aya_obj::generated::{
    PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF, PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_attr,
    bpf_btf_info, bpf_cmd, bpf_insn, bpf_link_info, bpf_prog_info, bpf_prog_type, perf_event_attr,
};

/// A program, ready for the verifier.
#[derive(Debug)]
pub(super) struct Program<'a> {
    pub(super) name: &'a str,
    pub(super) license: &'a CStr,
    pub(super) instructions: &'a [bpf_insn],
    pub(super) kind: Kind<'a>,
}

/// Types of program that probes are made of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind<'a> {
    /// kprobe and kretprobe.
    Kprobe,
    RawTracepoint,
    /// fentry and fexit, which are verified for one function.
    Tracing {
        attach: bpf_attach_type,
        /// Id of the function's type.
        type_id: u32,
        /// BTF of the module that has the function; `None` for vmlinux.
        btf: Option<BorrowedFd<'a>>,
    },
}

/// Loads a program.
///
/// # Errors
///
/// The kernel's error. Where `log` is given it holds the verifier's words after, as many as its
/// capacity takes; `ENOSPC` where there are more.
pub(super) fn load(program: &Program<'_>, log: Option<&mut Vec<u8>>) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: the member that BPF_PROG_LOAD reads; all zero is a valid value of it.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.insns = program.instructions.as_ptr() as u64;
    load.insn_cnt = program.instructions.len() as u32;
    load.license = program.license.as_ptr() as u64;
    let program_type = match program.kind {
        Kind::Kprobe => bpf_prog_type::BPF_PROG_TYPE_KPROBE,
        Kind::RawTracepoint => bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT,
        Kind::Tracing {
            attach,
            type_id,
            btf,
        } => {
            load.expected_attach_type = attach as u32;
            load.attach_btf_id = type_id;
            if let Some(btf) = btf {
                load.__bindgen_anon_1.attach_btf_obj_fd = btf.as_raw_fd() as u32;
            }
            bpf_prog_type::BPF_PROG_TYPE_TRACING
        }
    };
    load.prog_type = program_type as u32;
    // The last byte stays zero, as a C string needs.
    let length = load.prog_name.len() - 1;
    for (to, from) in load
        .prog_name
        .iter_mut()
        .zip(program.name.bytes().take(length))
    {
        *to = from as _;
    }
    if let Some(log) = log {
        log.resize(log.capacity(), 0);
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr() as u64;
        load.log_size = log.len() as u32;
    }
    bpf_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// Attaches a tracing program to the function it was loaded for. Closing the
/// descriptor detaches it.
pub(super) fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// Attaches a program to a raw tracepoint. Closing the descriptor detaches it.
pub(super) fn attach_raw_tracepoint(
    program: BorrowedFd<'_>,
    tracepoint: &str,
) -> io::Result<OwnedFd> {
    let tracepoint = CString::new(tracepoint)?;
    let mut attr = empty_attr();
    attr.raw_tracepoint.name = tracepoint.as_ptr() as u64;
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf_fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// Opens an iterator, which calls the program while it is read.
pub(super) fn open_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    let link = bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)?;
    let mut attr = empty_attr();
    attr.iter_create.link_fd = link.as_raw_fd() as u32;
    bpf_fd(bpf_cmd::BPF_ITER_CREATE, &mut attr)
}

/// Attaches a program to a function's entry, or to its return, by a kprobe. Closing the
/// descriptor detaches it.
///
/// # Errors
///
/// Where perf has no kprobes, or the kernel does not take this one.
pub(super) fn attach_kprobe(
    program: BorrowedFd<'_>,
    function: &str,
    at_return: bool,
) -> anyhow::Result<KprobeLink> {
    let event = kprobe_event(function, at_return)?;
    match link_event(program, event.as_fd()) {
        Ok(link) => Ok(KprobeLink::Link(link)),
        // Kernels before 5.15 know no such link.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            run_at_event(program, event.as_fd()).context("give a perf event its program")?;
            Ok(KprobeLink::Event(event))
        }
        Err(error) => Err(error).context("link a program to a perf event"),
    }
}

/// What holds a program at its kprobe.
#[derive(Debug)]
pub(super) enum KprobeLink {
    /// A link, which holds the event.
    Link(OwnedFd),
    /// The event itself.
    Event(#[expect(dead_code, reason = "closing it detaches the program")] OwnedFd),
}

impl KprobeLink {
    /// How often the kprobe was hit and its program not run, as the CPU was in another
    /// probe. Kernels before 6.7 do not tell, and it is 0.
    pub(super) fn missed(&self) -> u64 {
        match self {
            Self::Link(link) => kprobe_missed(link.as_fd()),
            Self::Event(_) => 0,
        }
    }
}

/// Where the kernel says how perf opens a kprobe.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// A perf event for every hit of a function on any CPU; whichever one CPU it is opened on
/// (kernel/trace/trace_event_perf.c, `perf_kprobe_init`).
fn kprobe_event(function: &str, at_return: bool) -> anyhow::Result<OwnedFd> {
    let function = CString::new(function)?;
    // SAFETY: integers and unions of them, for which the kernel wants unused bytes zero.
    let mut attr = unsafe { mem::zeroed::<perf_event_attr>() };
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.type_ = number(&format!("{KPROBES}/type"), "")?;
    if at_return {
        attr.config = 1 << number(&format!("{KPROBES}/format/retprobe"), "config:")?;
    }
    attr.__bindgen_anon_3.kprobe_func = function.as_ptr() as u64;
    let (pid, cpu, group) = (-1, 0, -1);
    // SAFETY: the attributes, and the name they point to, outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            pid,
            cpu,
            group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error()).context("open a perf event");
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// The number that a file holds, after a prefix.
fn number(path: &str, prefix: &str) -> anyhow::Result<u32> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let number = text.trim().strip_prefix(prefix);
    let number = number.and_then(|number| number.parse().ok());
    number.with_context(|| format!("read {path}: {:?} is no number", text.trim()))
}

fn link_event(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_fd = event.as_raw_fd() as u32;
    attr.link_create.attach_type = bpf_attach_type::BPF_PERF_EVENT as u32;
    bpf_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

fn run_at_event(program: BorrowedFd<'_>, event: BorrowedFd<'_>) -> io::Result<()> {
    let requests = [
        (PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()),
        (PERF_EVENT_IOC_ENABLE, 0),
    ];
    for (request, argument) in requests {
        // SAFETY: both requests take an integer.
        if unsafe { libc::ioctl(event.as_raw_fd(), request.into(), argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The BTF that the kernel keeps under a name: `vmlinux` or a module's.
///
/// # Errors
///
/// `NotFound` where there is none, else the kernel's error.
pub(super) fn kernel_btf(name: &str) -> io::Result<OwnedFd> {
    let mut id = 0;
    loop {
        // ENOENT: that was the last.
        id = next_id(bpf_cmd::BPF_BTF_GET_NEXT_ID, id)?;
        let btf = match object_by_id(bpf_cmd::BPF_BTF_GET_FD_BY_ID, id) {
            Ok(btf) => btf,
            // It went while we were looking.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut found = [0_u8; 64];
        let mut info = bpf_btf_info {
            btf: 0,
            btf_size: 0,
            id: 0,
            name: found.as_mut_ptr() as u64,
            name_len: found.len() as u32,
            kernel_btf: 0,
        };
        object_info(btf.as_fd(), &mut info)?;
        let found = CStr::from_bytes_until_nul(&found).unwrap_or_default();
        if info.kernel_btf != 0 && found.to_bytes() == name.as_bytes() {
            return Ok(btf);
        }
    }
}

/// Run statistics and the like of a loaded program.
pub(super) fn program_info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    // SAFETY: integers and arrays of them.
    let mut info = unsafe { mem::zeroed::<bpf_prog_info>() };
    object_info(program, &mut info)?;
    Ok(info)
}

/// Reads a hash map as a whole, a few buckets a call.
///
/// Scanning it key by key begins anew whenever the key at hand has gone, so under a
/// storm of new flows it might not end; this way each bucket is passed once.
///
/// # Errors
///
/// The kernel's error; before 5.6 it does not know the command.
pub(super) fn read_map<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    let mut batch = FIRST_BATCH;
    // Where the next batch begins; the kernel knows what it means.
    let (mut position, mut begun) = (0_u64, false);
    loop {
        let (mut keys, mut values) = (
            Vec::<K>::with_capacity(batch),
            Vec::<V>::with_capacity(batch),
        );
        let mut next = 0_u64;
        let mut attr = empty_attr();
        attr.batch.in_batch = if begun { &raw const position as u64 } else { 0 };
        attr.batch.out_batch = &raw mut next as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = batch as u32;
        attr.batch.map_fd = map.as_raw_fd() as u32;
        let result =
            bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr).map_err(|error| error.raw_os_error());
        let end = match result {
            Ok(_) => false,
            Err(Some(libc::ENOENT)) => true,
            // A bucket that holds more than a batch.
            Err(Some(libc::ENOSPC)) if batch < LARGEST_BATCH => {
                batch *= 2;
                continue;
            }
            Err(error) => return Err(io::Error::from_raw_os_error(error.unwrap_or(libc::EIO))),
        };
        // SAFETY: the kernel has written as many of both, at most the capacity.
        unsafe {
            let count = attr.batch.count as usize;
            keys.set_len(count);
            values.set_len(count);
        }
        entries.extend(keys.into_iter().zip(values));
        if end {
            return Ok(entries);
        }
        (position, begun) = (next, true);
    }
}

/// Takes an entry out of a hash map; whether it was still there.
///
/// # Errors
///
/// The kernel's error.
pub(super) fn delete_entry<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = std::ptr::from_ref(key) as u64;
    match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes an entry of an array.
///
/// # Errors
///
/// The kernel's error.
pub(super) fn set_entry(map: BorrowedFd<'_>, index: u32, value: &[u8]) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = &raw const index as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Closes a map to writes from user space for good, so that the verifier can take its
/// values for constants.
///
/// # Errors
///
/// The kernel's error.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr).map(drop)
}

/// Entries asked for at a time. Few at first: most nodes have few flows.
const FIRST_BATCH: usize = 1 << 10;
const LARGEST_BATCH: usize = 1 << 20;

fn kprobe_missed(link: BorrowedFd<'_>) -> u64 {
    link_info(link).map_or(0, |info| {
        // SAFETY: the link is of a kprobe, and the kernel left zero what it does not know.
        unsafe {
            info.__bindgen_anon_1
                .perf_event
                .__bindgen_anon_1
                .kprobe
                .missed
        }
    })
}

fn link_info(link: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: integers and unions of them.
    let mut info = unsafe { mem::zeroed::<bpf_link_info>() };
    object_info(link, &mut info)?;
    Ok(info)
}

fn next_id(command: bpf_cmd, id: u32) -> io::Result<u32> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
    bpf(command, &mut attr)?;
    // SAFETY: the kernel has written it.
    Ok(unsafe { attr.__bindgen_anon_6.next_id })
}

/// The member of the attributes is the same for objects of every kind.
fn object_by_id(command: bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
    bpf_fd(command, &mut attr)
}

fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = empty_attr();
    attr.info.bpf_fd = object.as_raw_fd() as u32;
    attr.info.info = std::ptr::from_mut(info) as u64;
    attr.info.info_len = size_of::<T>() as u32;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

fn empty_attr() -> bpf_attr {
    // SAFETY: a union of integers, for which the kernel wants unused bytes zero.
    unsafe { mem::zeroed() }
}

fn bpf_fd(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)? as RawFd;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is valid for its whole size, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
