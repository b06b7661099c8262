//! Makers of real, bounded faults. Each leaves traces only in the guest that it works in.

pub mod cgroup;
pub mod clash;
pub mod disk;
pub mod dns;
pub mod dnsperf;
pub mod fuse;
mod io_uring;
pub mod ipvs;
pub mod namespaces;
pub mod ping;
pub mod power;
pub mod reader;
pub mod reuse;
pub mod udp_flow;
pub mod working_set;

use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};

use self::cgroup::Cgroup;
use crate::guest::{Guest, Process};
use crate::protocol;

/// What this program does, run again in a process of its own. None has an end.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Reads(reader::Use),
    WorksIn(working_set::Kind),
    WaitsForIoUring,
}

impl Fault {
    const ALL: [Self; 5] = [
        Self::Reads(reader::Use::None),
        Self::Reads(reader::Use::Works),
        Self::WorksIn(working_set::Kind::Memory),
        Self::WorksIn(working_set::Kind::File),
        Self::WaitsForIoUring,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Reads(reader::Use::None) => "reader",
            Self::Reads(reader::Use::Works) => "reader_that_works",
            Self::WorksIn(working_set::Kind::Memory) => "working_set_of_memory",
            Self::WorksIn(working_set::Kind::File) => "working_set_of_a_file",
            Self::WaitsForIoUring => "idle_io_uring",
        }
    }

    /// Starts it in a cgroup.
    fn start(self, guest: &Guest, cgroup: &Cgroup) -> Result<Process> {
        let program = std::env::current_exe().context("find this program")?;
        let (name, program) = (self.name(), program.display());
        let script = format!("{}={name} exec {program}", protocol::FAULT_ENV);
        cgroup.start(guest, name, &script)
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Reads(reads_and) => reader::run(reads_and),
            Self::WorksIn(kind) => working_set::run(kind),
            Self::WaitsForIoUring => io_uring::run(),
        }
    }
}

/// A server that has nothing to do and waits for it by io_uring.
pub fn wait_for_io_uring(guest: &Guest, cgroup: &Cgroup) -> Result<Process> {
    Fault::WaitsForIoUring.start(guest, cgroup)
}

/// Runs the fault of this name.
pub(crate) fn run(name: &str) -> ExitCode {
    let named = Fault::ALL.into_iter().find(|it| it.name() == name);
    let fault = named.ok_or_else(|| anyhow!("no fault {name}"));
    if let Err(error) = fault.and_then(Fault::run) {
        println!("{error:#}");
    }
    ExitCode::FAILURE
}
