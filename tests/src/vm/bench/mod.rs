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

use super::kernels::{Clock, Matrix};
use super::report::say;
use super::{session, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::Registry;

/// The scenarios that measure begin with this.
const PREFIX: &str = "bench::";

/// Room for a table of a quarter of a million entries beside bpftrace.
const MEMORY_MIB: u32 = 3_072;

/// What they gave, by the rest of their names.
struct Measured(BTreeMap<String, Value>);

impl Measured {
    fn take<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.0.get(name).with_context(|| format!("no {name}"))?;
        serde_json::from_value(value.clone()).with_context(|| format!("read the figures of {name}"))
    }
}

/// Boots the first kernel that is selected, and writes the page if all was measured.
pub(super) fn run(matrix: &Matrix, registry: &Registry) -> Result<ExitCode> {
    let target = env::var_os("NODEMEDIC_BENCH_PAGE").map(PathBuf::from);
    let target = target.context("NODEMEDIC_BENCH_PAGE names no file for the page")?;
    let agent = env::var_os("NODEMEDIC_BIN").context("NODEMEDIC_BIN names no agent")?;
    let kernel = matrix.kernels.first().context("no kernel is selected")?;
    let mut vm = vm(matrix, kernel)?;
    vm.bpftrace(matrix)?;
    vm.machine.clock = Clock::Instructions;
    vm.machine.memory_mib = vm.machine.memory_mib.max(MEMORY_MIB);
    let measured = measure(&kernel.name, &vm, registry)?;
    let native = host::measure(agent.as_ref())?;
    let page = page::render(&measured, &native, &kernel.package)?;
    fs::write(&target, page).with_context(|| format!("write {}", target.display()))?;
    say!("written: {}", target.display());
    Ok(ExitCode::SUCCESS)
}

fn measure(kernel: &str, vm: &super::boot::Vm, registry: &Registry) -> Result<Measured> {
    let benches = registry.apart.iter();
    let only = env::var("ONLY").unwrap_or_default(); let benches = benches.filter(|scenario| scenario.name.starts_with(PREFIX) && scenario.name.contains(&only));
    let tasks = benches
        .map(|scenario| Task::new(scenario, Value::Null))
        .collect::<Vec<_>>();
    let (mut measured, mut failed) = (BTreeMap::new(), Vec::new());
    session::run(kernel, vm, &tasks, &mut |scenario, outcome| {
        let name = scenario.trim_start_matches(PREFIX).to_owned();
        match outcome {
            Outcome::Measured(value) => {
                say!("{name}: {value}");
                measured.insert(name, value);
            }
            Outcome::Passed | Outcome::Skipped(_) => failed.push(format!("{name} measured nothing")),
            Outcome::Failed(why) => failed.push(format!("{name}: {why}")),
        }
    })?;
    ensure!(!tasks.is_empty(), "there is nothing to measure");
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(Measured(measured))
}
