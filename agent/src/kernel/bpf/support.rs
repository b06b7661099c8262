//! Whether the kernel takes BPF programs of a type, found out by offering one.

use std::{collections::BTreeMap, io, os::fd::OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_insn};

use super::sys::{self, Kind, Program};
use crate::kernel::facts::{Fact, ProgramType};

/// `ENOTSUPP` of include/linux/errno.h, which is no errno of user space.
const ENOTSUPP: i32 = 524;

/// Offers the kernel a smallest program of each type. Returns the errors of refusals as well, as
/// far as they are known.
///
/// `tracing_target` is the id of a function's type in vmlinux's BTF, if one is known.
pub fn program_types(
    tracing_target: Option<u32>,
) -> (
    BTreeMap<ProgramType, Fact<bool>>,
    BTreeMap<ProgramType, String>,
) {
    use aya::{programs::ProgramType as Type, sys::is_program_supported};
    let offered = |program_type| Fact::from(is_program_supported(program_type));
    let (tracing, refusal) = tracing(tracing_target);
    let types = BTreeMap::from([
        (ProgramType::Kprobe, offered(Type::KProbe)),
        (ProgramType::Tracepoint, offered(Type::TracePoint)),
        (ProgramType::RawTracepoint, offered(Type::RawTracePoint)),
        (ProgramType::Tracing, tracing),
    ]);
    let refusals = refusal.map(|error| (ProgramType::Tracing, error));
    (types, refusals.into_iter().collect())
}

/// Whether this process may load no tracing program whatever it is attached to, so that no
/// function has to be found to learn it.
pub fn tracing_is_forbidden() -> bool {
    // The first type of BTF is no function. Who may load programs is told just that
    // (kernel/bpf/verifier.c, `bpf_check_attach_target`).
    offer_tracing(1).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

fn tracing(target: Option<u32>) -> (Fact<bool>, Option<String>) {
    let Some(type_id) = target else {
        let why = "no function to try it on: vmlinux has no BTF";
        return (Fact::Unknown(why.to_owned()), None);
    };
    match offer_tracing(type_id) {
        Ok(_) => (Fact::Known(true), None),
        Err(error) => (refused(&error), Some(error.to_string())),
    }
}

fn offer_tracing(type_id: u32) -> io::Result<OwnedFd> {
    // r0 = 0; exit
    let instructions = [insn(0xb7), insn(0x95)];
    let program = Program {
        name: "offer",
        license: c"Dual MIT/GPL",
        instructions: &instructions,
        kind: Kind::Tracing {
            attach: bpf_attach_type::BPF_TRACE_FENTRY,
            type_id,
            btf: None,
        },
    };
    sys::load(&program, None)
}

fn refused(error: &io::Error) -> Fact<bool> {
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::E2BIG | libc::EPERM | libc::EACCES | ENOTSUPP) => {
            Fact::Known(false)
        }
        _ => Fact::Unknown(format!("load a tracing program: {error}")),
    }
}

fn insn(code: u8) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    }
}
