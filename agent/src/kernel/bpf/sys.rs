//! The few bpf(2) commands that aya has no door to: programs on functions of a
//! *module* want the BTF of that module, and aya's loader knows vmlinux's alone.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya::Pod;
use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_insn, bpf_link_info, bpf_link_type,
    bpf_prog_info, bpf_prog_type,
};

/// A program of type tracing, ready for the verifier.
#[derive(Debug)]
pub(super) struct TracingProgram<'a> {
    pub(super) name: &'a str,
    pub(super) license: &'a CStr,
    pub(super) instructions: &'a [bpf_insn],
    pub(super) attach: bpf_attach_type,
    /// Id of the function's type.
    pub(super) type_id: u32,
    /// BTF of the module that has the function; `None` for vmlinux.
    pub(super) btf: Option<BorrowedFd<'a>>,
}

/// Loads a program of type tracing.
///
/// # Errors
///
/// The kernel's error. Where `log` is given it holds the verifier's words after.
pub(super) fn load_tracing(
    program: &TracingProgram<'_>,
    log: Option<&mut Vec<u8>>,
) -> io::Result<OwnedFd> {
    let mut attr = empty_attr();
    // SAFETY: the member that BPF_PROG_LOAD reads; all zero is a valid value of it.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = program.attach as u32;
    load.insns = program.instructions.as_ptr() as u64;
    load.insn_cnt = program.instructions.len() as u32;
    load.license = program.license.as_ptr() as u64;
    load.attach_btf_id = program.type_id;
    if let Some(btf) = program.btf {
        load.__bindgen_anon_1.attach_btf_obj_fd = btf.as_raw_fd() as u32;
    }
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
        log.resize(64 * 1024, 0);
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
/// Walking it key by key begins anew whenever the key at hand has gone, so under a
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

/// Entries asked for at a time. Few at first: most nodes have few flows.
const FIRST_BATCH: usize = 1 << 10;
const LARGEST_BATCH: usize = 1 << 20;

/// The link that holds a program at its kprobe, among all of the system; aya keeps
/// the descriptor that it has to itself. `None` where the kernel holds kprobes by no
/// link (before 5.15), or does not let this process look.
pub(super) fn kprobe_link(program: BorrowedFd<'_>) -> Option<OwnedFd> {
    let program = program_info(program).ok()?.id;
    let mut id = 0;
    loop {
        id = next_id(bpf_cmd::BPF_LINK_GET_NEXT_ID, id).ok()?;
        let Ok(link) = object_by_id(bpf_cmd::BPF_LINK_GET_FD_BY_ID, id) else {
            continue;
        };
        let info = link_info(link.as_fd()).ok()?;
        if info.prog_id == program && info.type_ == bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32 {
            return Some(link);
        }
    }
}

/// How often a kprobe was hit and its program not run, as the CPU was in another
/// probe. Kernels before 6.7 do not tell, and it is 0.
pub(super) fn kprobe_missed(link: BorrowedFd<'_>) -> u64 {
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
