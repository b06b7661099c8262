//! What the agent costs, measured in one boot of one kernel.

pub mod figures;
mod host;

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};

use super::boot::Vm;
use super::kernels::{Kernel, Matrix};
use super::machine::{Clock, Shift};
use super::report::say;
use super::{session, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::{Registry, Shape};

/// The scenarios that measure begin with this.
const PREFIX: &str = "bench::";

/// Room for a table of a quarter of a million entries beside bpftrace.
const MEMORY_MIB: u32 = 3_072;

type Figures = Map<String, Value>;

/// The name of what is measured outside of the VM.
const HOST: &str = "host";

/// Measures on the first kernel that is selected, and puts the figures into a file: those of each
/// benchmark by its name, in place of those that were there.
pub(super) fn run(matrix: &Matrix, registry: &Registry) -> Result<ExitCode> {
    let kernel = matrix.kernels.first().context("no kernel is selected")?;
    let file = env::var_os("NODEMEDIC_BENCH_FILE").map(PathBuf::from);
    let file = file.context("NODEMEDIC_BENCH_FILE names no file for the figures")?;
    let mut figures = read(&file)?;
    let only = env::var("NODEMEDIC_BENCH_ONLY").unwrap_or_default();
    if HOST.starts_with(&only) {
        figures.insert(HOST.to_owned(), native()?);
    }
    let tasks = tasks(registry, &only);
    ensure!(
        !tasks.is_empty() || only == HOST,
        "no measurement begins with {only:?}"
    );
    if !tasks.is_empty() {
        figures.extend(measure(matrix, kernel, tasks)?);
    }
    write(&file, &figures)?;
    Ok(ExitCode::SUCCESS)
}

fn native() -> Result<Value> {
    let agent = env::var_os("NODEMEDIC_BIN").context("NODEMEDIC_BIN names no agent")?;
    say!("the agent on this host, for a minute");
    serde_json::to_value(host::measure(&agent)?).context("write the figures as JSON")
}

/// None, where the file is not there yet.
fn read(file: &Path) -> Result<Figures> {
    match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Figures::new()),
        figures => serde_json::from_slice(&figures?).map_err(anyhow::Error::from),
    }
    .with_context(|| format!("read {}", file.display()))
}

fn write(file: &Path, figures: &Figures) -> Result<()> {
    let mut text = serde_json::to_string_pretty(figures).context("write the figures as JSON")?;
    text.push('\n');
    fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    say!("written: {}", file.display());
    Ok(())
}

/// The measurements whose names, without the prefix, begin so.
fn tasks(registry: &Registry, start: &str) -> Vec<Task> {
    let start = format!("{PREFIX}{start}");
    let benches = registry.apart.iter();
    let benches = benches.filter(|scenario| scenario.name.starts_with(&start));
    benches
        .map(|scenario| Task::new(scenario, Value::Null))
        .collect()
}

/// The figures of each, with the kernel's name among them.
fn measure(matrix: &Matrix, kernel: &Kernel, tasks: Vec<Task>) -> Result<Figures> {
    let vm = machine(matrix, kernel)?;
    let (mut measured, mut failed) = (Figures::new(), Vec::new());
    session::outcomes(&kernel.name, &vm, &tasks, &mut |scenario, outcome| {
        let name = scenario.trim_start_matches(PREFIX).to_owned();
        match outcome {
            Outcome::Measured(mut value) => {
                value["kernel"] = kernel.package.as_str().into();
                say!("{name}: {value}");
                measured.insert(name, value);
            }
            Outcome::Failed(why) => failed.push(format!("{name}: {why}")),
            Outcome::Passed | Outcome::Skipped(_) => failed.push(format!("{name}: no figures")),
        }
    })?;
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(measured)
}

fn machine(matrix: &Matrix, kernel: &Kernel) -> Result<Vm> {
    let mut vm = vm(matrix, kernel, Shape::Usual)?;
    vm.bpftrace(matrix)?;
    vm.machine.memory_mib = vm.machine.memory_mib.max(MEMORY_MIB);
    vm.machine.clock = Clock::Paced(Shift::FAST);
    Ok(vm)
}
