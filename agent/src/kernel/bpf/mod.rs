//! BPF objects: loaded with the facts of this kernel, attached by the first hook
//! that it takes.

mod attach;
mod iterator;
mod maps;
mod offset;
mod plan;
mod probe;
mod probes;
mod remedy;
mod support;
mod sys;
mod typed_reads;

use attach::{Attached, log_of};
pub use attach::{Object, ProbeLog, verbosity};
pub use iterator::SymbolIterator;
pub use maps::{HashMap, Parameters};
pub use offset::{offset, unreadable};
pub use plan::{PlannedProbe, plan};
pub use probe::{At, Candidate, Hook, Probe, Program};
pub(crate) use probe::{fentry_or_kprobe, programs};
pub use probes::Probes;
pub use remedy::kernel_with;
pub use support::{program_types, tracing_is_forbidden};
