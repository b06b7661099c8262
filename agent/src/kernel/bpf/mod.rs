//! BPF objects: loaded with the facts of this kernel, attached by the first hook
//! that it takes.

mod attach;
mod offset;
mod plan;
mod probe;
mod support;
mod sys;

pub use attach::{Attached, HashMap, Object, ProbeLog};
pub use offset::{offset, unreadable};
pub use plan::{PlannedProbe, plan};
pub use probe::{At, Candidate, Hook, Probe, Program};
pub use support::program_types;
