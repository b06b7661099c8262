//! The VM harness: boots the kernels of the matrix and runs the scenarios on each.
//!
//! One program plays four parts, told apart by how it is started, so what is tested in a VM is
//! the very file that the host runs:
//!
//! - the *host* ([`vm`]) fetches kernels and tools, boots QEMU and turns what comes back into test
//!   results;
//! - *PID 1* of a guest ([`guest::init`]) mounts what a scenario needs, runs the scenarios one
//!   after the other and cleans up after each;
//! - a *fault* ([`faults`]) that needs a process of its own is a child of a scenario;
//! - a *scenario* ([`scenario`]) is a child of that PID 1, so whatever it does to itself, the next
//!   one still runs.

pub mod eventually;
pub mod faults;
pub mod files;
pub mod guest;
pub mod http;
pub mod metrics;
pub mod phase;
pub mod pods;
mod protocol;
pub mod scenario;
pub mod usage;
mod vm;

use std::process::ExitCode;

use crate::scenario::Registry;
pub use crate::vm::{alerting, bench, beside, lab, port, soak, tools};

/// `main` of the test binary.
pub fn main(registry: &Registry) -> ExitCode {
    if std::process::id() == 1 {
        guest::init::run()
    } else if let Some(name) = std::env::var_os(protocol::FAULT_ENV) {
        faults::run(&name.to_string_lossy())
    } else if let Some(name) = std::env::var_os(protocol::SCENARIO_ENV) {
        guest::child::run(registry, &name.to_string_lossy())
    } else {
        vm::main(registry)
    }
}
