//! What can be attached, as data: an ailment lists its probes, each with hooks
//! in the order of their cost, and the first that this kernel takes is used.

use serde::{Deserialize, Serialize};

use crate::{
    kernel::facts::VMLINUX,
    keys::{Allowed, Value},
};

/// One thing to be counted, and the ways to hook it.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Name in the table of probes.
    pub name: &'static str,
    /// What is lost to the user without it.
    pub gives: &'static str,
    /// Ways to hook it, cheapest first.
    pub candidates: &'static [Candidate],
}

/// Programs that together hook one probe; all of them attach, or none.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Kind of hook.
    pub hook: Hook,
    /// The programs, in the order of attaching.
    pub programs: &'static [Program],
}

/// Kinds of hook, the cheapest first, as `nodemedic probes`, the metrics and the
/// configuration name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// fentry and fexit: a call from the function itself, through BTF.
    Fentry,
    /// A tracepoint's own arguments: a call where the kernel's authors put it.
    RawTracepoint,
    /// kprobe and kretprobe: through a trap or ftrace.
    Kprobe,
}

/// Which of them, the key says.
impl Value for Vec<Hook> {
    const ALLOWED: Option<Allowed> = None;
}

impl Hook {
    /// Name in tables and labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::RawTracepoint => "raw_tracepoint",
            Self::Kprobe => "kprobe",
        }
    }
}

/// A BPF program and the function, or the tracepoint, it is attached to.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the program in the object.
    pub name: &'static str,
    /// At the function's entry or its return. A tracepoint is a place by itself.
    pub at: At,
    /// Name of the kernel function or of the tracepoint.
    pub function: &'static str,
    /// Module of it; it may be built in.
    pub module: &'static str,
}

impl Candidate {
    /// By fentry and fexit.
    pub const fn fentry(programs: &'static [Program]) -> Self {
        Self {
            hook: Hook::Fentry,
            programs,
        }
    }

    /// By kprobe and kretprobe.
    pub const fn kprobe(programs: &'static [Program]) -> Self {
        Self {
            hook: Hook::Kprobe,
            programs,
        }
    }

    /// By tracepoints, with their own arguments.
    pub const fn raw_tracepoint(programs: &'static [Program]) -> Self {
        Self {
            hook: Hook::RawTracepoint,
            programs,
        }
    }
}

impl Program {
    /// At a tracepoint of the kernel image.
    pub const fn tracepoint(name: &'static str, tracepoint: &'static str) -> Self {
        Self {
            name,
            at: At::Entry,
            function: tracepoint,
            module: VMLINUX,
        }
    }
}

/// Programs on functions of a module, each with its name, where in the function, and which.
macro_rules! programs {
    ($module:expr => $($name:expr, at $at:ident of $function:expr),+ $(,)?) => {
        &[$(
            $crate::kernel::bpf::Program {
                name: $name,
                at: $crate::kernel::bpf::programs!(@ $at),
                function: $function,
                module: $module,
            }
        ),+]
    };
    (@ entry) => { $crate::kernel::bpf::At::Entry };
    (@ return) => { $crate::kernel::bpf::At::Return };
}
pub(crate) use programs;

/// The candidates of programs that there are for fentry and for kprobe, on the same functions of
/// a module in the same order: those called `x` at an entry are `x_fentry` and `x_kprobe`, at a
/// return `x_fexit` and `x_kretprobe`.
macro_rules! fentry_or_kprobe {
    ($module:expr => $($name:literal, at $at:ident of $function:expr),+ $(,)?) => {
        &[
            $crate::kernel::bpf::Candidate::fentry($crate::kernel::bpf::programs![$module => $(
                $crate::kernel::bpf::fentry_or_kprobe!(@fentry $at $name), at $at of $function
            ),+]),
            $crate::kernel::bpf::Candidate::kprobe($crate::kernel::bpf::programs![$module => $(
                $crate::kernel::bpf::fentry_or_kprobe!(@kprobe $at $name), at $at of $function
            ),+]),
        ]
    };
    (@fentry entry $name:literal) => { concat!($name, "_fentry") };
    (@fentry return $name:literal) => { concat!($name, "_fexit") };
    (@kprobe entry $name:literal) => { concat!($name, "_kprobe") };
    (@kprobe return $name:literal) => { concat!($name, "_kretprobe") };
}
pub(crate) use fentry_or_kprobe;

/// Where in a function a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Before its first instruction.
    Entry,
    /// After its last.
    Return,
}
