//! The host's side: fetch, boot, run, report.
//!
//! ```text
//! kernels ──packages(sources)──> kernel_image(modules) ─┐
//!                       └──────> guest_root ────────────┼─archive─> boot ─> session(console) ─> board ─> trials
//!                       └──────> qemu ──────────────────┘
//! ```
//!
//! The environment decides what `cargo test` has no options for:
//!
//! | Variable | Effect |
//! |---|---|
//! | `NODEMEDIC_VM=off` | every test that needs a VM is ignored |
//! | `NODEMEDIC_VM=keep` | the first kernel that the filter selects is booted on this terminal; after its scenarios comes a shell |
//! | `NODEMEDIC_VM=shell` | the same without the scenarios |
//! | `NODEMEDIC_VM=lab` | for a person: an ailment and the agent in it, until a signal comes; `NODEMEDIC_LAB_AILMENT`, `_PORT` and `_SIZE` say which, where its pages are, and how big the fault is |
//! | `NODEMEDIC_VM=bench` | what the agent costs is measured, and written as JSON into `NODEMEDIC_BENCH_FILE`; `NODEMEDIC_BENCH_ONLY` selects |
//! | `NODEMEDIC_VM=soak` | `NODEMEDIC_SOAK_HOURS` of guest time with faults that come and go |
//! | `NODEMEDIC_VM=record` | what the agent finds out about each kernel is written to files in `NODEMEDIC_RECORD_FOLDER` |
//! | `NODEMEDIC_VM_FORWARD` | with these two: a TCP port of the loopback that leads into the guest |
//! | `NODEMEDIC_VM_KERNEL` | only this kernel of the matrix |
//! | `NODEMEDIC_VM_SMP`, `_MEM`, `_CMDLINE` | size and command line of the guests, whatever shape a scenario wants |
//! | `NODEMEDIC_VM_SEED` | of the guests' random numbers: with another, ports, hashes and addresses differ |
//! | `NODEMEDIC_VM_BPFTRACE` | if set, the guests have bpftrace, and the memory for it |
//! | `NODEMEDIC_BIN` | the agent that the guests take along |
//! | `NODEMEDIC_CACHE` | where downloads are kept |
//! | `NODEMEDIC_QEMU` | the emulator to use |
//! | `NODEMEDIC_DEBIAN_ARCHIVE` | Debian's archive, if the machine's apt knows none |

pub mod alerting;
mod archive;
pub mod bench;
pub mod beside;
mod board;
mod boot;
mod cache;
mod console;
mod costs;
mod elf;
mod guest_root;
mod interrupt;
mod keep;
mod kernel_image;
mod kernels;
pub mod lab;
mod machine;
mod madt;
mod modules;
mod packages;
pub mod port;
mod qemu;
mod record;
mod report;
mod run_folder;
mod session;
pub mod soak;
mod sources;
mod tail;
pub mod tools;
mod trials;
mod unfixed;
mod watchdog;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Trial};

use self::board::Board;
use self::boot::Vm;
use self::kernels::{Kernel, Matrix};
use self::machine::Machine;
use self::trials::{Boot, Plan};
use crate::scenario::{Registry, Shape};

/// What `NODEMEDIC_VM` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Test,
    Off,
    Keep,
    Shell,
    Lab,
    Bench,
    Soak,
    Record,
}

/// `main` on the host.
pub(crate) fn main(registry: &Registry) -> ExitCode {
    match host(registry, Arguments::from_args()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {}", report::explained(&error));
            ExitCode::from(2)
        }
    }
}

fn host(registry: &Registry, arguments: Arguments) -> Result<ExitCode> {
    let mut matrix = Matrix::load()?;
    matrix.ensure_knows(registry.matrix)?;
    if let Ok(name) = env::var("NODEMEDIC_VM_KERNEL") {
        matrix.restrict(&name)?;
    }
    let plan = Plan::new(&matrix, registry)?;
    let board = Arc::new(Board::new());
    match mode()? {
        _ if arguments.list => Ok(conclude(&arguments, plan.trials(&board))),
        Mode::Off => Ok(conclude(
            &arguments,
            plan.ignored("left out: NODEMEDIC_VM=off"),
        )),
        Mode::Keep => keep::run(&matrix, plan.boots(&arguments)),
        Mode::Shell => keep::run(&matrix, without_tasks(plan.boots(&arguments))),
        Mode::Lab => lab::run(&matrix, registry),
        Mode::Bench => bench::run(&matrix, registry),
        Mode::Soak => soak::run(&matrix, registry),
        Mode::Record => record::run(&matrix, registry),
        Mode::Test => trials::run(&matrix, &plan, &board, arguments),
    }
}

/// A static build of this program can be PID 1 of a guest, and no other.
fn this() -> Result<PathBuf> {
    let this = env::current_exe().context("find the running test binary")?;
    boot::ensure_static(&this)?;
    Ok(this)
}

fn mode() -> Result<Mode> {
    match env::var("NODEMEDIC_VM").unwrap_or_default().as_str() {
        "" => Ok(Mode::Test),
        "off" => Ok(Mode::Off),
        "keep" => Ok(Mode::Keep),
        "shell" => Ok(Mode::Shell),
        "lab" => Ok(Mode::Lab),
        "bench" => Ok(Mode::Bench),
        "soak" => Ok(Mode::Soak),
        "record" => Ok(Mode::Record),
        other => bail!(
            "NODEMEDIC_VM={other:?}: it can be off, keep, shell, lab, bench, soak, record, or unset"
        ),
    }
}

fn without_tasks(mut boots: Vec<Boot>) -> Vec<Boot> {
    boots.iter_mut().for_each(|boot| boot.tasks.clear());
    boots
}

fn conclude(arguments: &Arguments, trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(arguments, trials).exit_code()
}

/// A VM with this test binary as its PID 1, and the agent if there is one.
fn vm(matrix: &Matrix, kernel: &Kernel, shape: Shape) -> Result<Vm> {
    let mut vm = Vm::prepare(matrix, kernel, Machine::of(shape)?, &this()?)?;
    if let Some(agent) = env::var_os("NODEMEDIC_BIN") {
        vm.agent(Path::new(&agent))?;
    }
    if shape == Shape::Pods {
        vm.containers(matrix)?;
        vm.systemd(matrix)?;
        vm.disks(matrix)?;
    }
    if env::var_os("NODEMEDIC_VM_BPFTRACE").is_some() {
        vm.bpftrace(matrix)?;
    }
    Ok(vm)
}
