//! BPF objects: loaded with the facts of this kernel, attached by the first hook
//! that it takes.

mod attach;
mod iterator;
mod maps;
mod offset;
mod plan;
mod probe;
mod support;
mod sys;

pub use attach::{Attached, Object, ProbeLog, log_of, verbosity};
pub use iterator::SymbolIterator;
pub use maps::{HashMap, Parameters};
pub use offset::{offset, unreadable};
pub use plan::{PlannedProbe, plan};
pub use probe::{At, Candidate, Hook, Probe, Program};
pub use support::{program_types, tracing_is_forbidden};
