//! What the agent costs, measured in one boot of one kernel, and the page about it.

pub mod figures;
mod host;
mod page;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::boot::Vm;
use super::kernels::{Kernel, Matrix};
use super::machine::Clock;
use super::report::say;
use super::{session, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::{Registry, Shape};

/// The scenarios that measure begin with this.
const PREFIX: &str = "bench::";

/// Room for a table of a quarter of a million entries beside bpftrace.
const MEMORY_MIB: u32 = 3_072;

/// What they gave, by the rest of their names.
struct Measured(BTreeMap<String, Value>);

impl Measured {
    fn take<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.0.get(name).with_context(|| format!("no {name}"))?;
        T::deserialize(value).with_context(|| format!("read the figures of {name}"))
    }
}

/// Measures on the first kernel that is selected, and writes the page: if one measurement alone is
/// asked for, its figures are shown and no page is written.
pub(super) fn run(matrix: &Matrix, registry: &Registry) -> Result<ExitCode> {
    let kernel = matrix.kernels.first().context("no kernel is selected")?;
    if let Ok(only) = env::var("NODEMEDIC_BENCH_ONLY") {
        measure(matrix, kernel, tasks(registry, &only)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let target = env::var_os("NODEMEDIC_BENCH_PAGE").map(PathBuf::from);
    let target = target.context("NODEMEDIC_BENCH_PAGE names no file for the page")?;
    let agent = env::var_os("NODEMEDIC_BIN").context("NODEMEDIC_BIN names no agent")?;
    say!("the agent on this host, for a minute");
    let native = host::measure(&agent)?;
    let measured = measure(matrix, kernel, tasks(registry, "")?)?;
    let page = page::render(&measured, &native, &kernel.package)?;
    fs::write(&target, page).with_context(|| format!("write {}", target.display()))?;
    say!("written: {}", target.display());
    Ok(ExitCode::SUCCESS)
}

/// The measurements whose names, without the prefix, begin so.
fn tasks(registry: &Registry, start: &str) -> Result<Vec<Task>> {
    let start = format!("{PREFIX}{start}");
    let benches = registry.apart.iter();
    let benches = benches.filter(|scenario| scenario.name.starts_with(&start));
    let tasks = benches
        .map(|scenario| Task::new(scenario, Value::Null))
        .collect::<Vec<_>>();
    ensure!(!tasks.is_empty(), "no measurement begins with {start}");
    Ok(tasks)
}

fn measure(matrix: &Matrix, kernel: &Kernel, tasks: Vec<Task>) -> Result<Measured> {
    let vm = machine(matrix, kernel)?;
    let (mut measured, mut failed) = (BTreeMap::new(), Vec::new());
    session::run(&kernel.name, &vm, &tasks, &mut |scenario, outcome| {
        let name = scenario.trim_start_matches(PREFIX).to_owned();
        match outcome {
            Outcome::Measured(value) => {
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
    Ok(Measured(measured))
}

fn machine(matrix: &Matrix, kernel: &Kernel) -> Result<Vm> {
    let mut vm = vm(matrix, kernel, Shape::Usual)?;
    vm.bpftrace(matrix)?;
    vm.machine.memory_mib = vm.machine.memory_mib.max(MEMORY_MIB);
    vm.machine.clock = Clock::Instructions;
    Ok(vm)
}
