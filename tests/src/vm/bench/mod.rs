//! What the agent costs, measured in one boot of one kernel, and the pages about it.

pub mod figures;
mod host;
mod ipvs;
mod page;
mod psi;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

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

/// What they gave, by the rest of their names.
struct Measured(BTreeMap<String, Value>);

impl Measured {
    fn has(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.0.contains_key(*name))
    }

    fn take<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.0.get(name).with_context(|| format!("no {name}"))?;
        T::deserialize(value).with_context(|| format!("read the figures of {name}"))
    }
}

/// Measures on the first kernel that is selected, and writes the pages whose measurements are all
/// asked for. Figures are shown in any case.
pub(super) fn run(matrix: &Matrix, registry: &Registry) -> Result<ExitCode> {
    let kernel = matrix.kernels.first().context("no kernel is selected")?;
    let folder = env::var_os("NODEMEDIC_BENCH_FOLDER").map(PathBuf::from);
    let folder = folder.context("NODEMEDIC_BENCH_FOLDER names no folder for the pages")?;
    let only = env::var("NODEMEDIC_BENCH_ONLY").unwrap_or_default();
    let native = match only.as_str() {
        "" => Some(native()?),
        _ => None,
    };
    let measured = measure(matrix, kernel, tasks(registry, &only)?)?;
    if let Some(native) = native {
        let page = page::render(&measured, &native, &kernel.package)?;
        write(&folder.join("performance.md"), &page)?;
    }
    if measured.has(&ipvs::PARTS) {
        let page = ipvs::render(&measured, &kernel.package)?;
        write(&folder.join("performance-ipvs.md"), &page)?;
    }
    if measured.has(&psi::PARTS) {
        let page = psi::render(&measured, &kernel.package)?;
        write(&folder.join("performance-psi.md"), &page)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn native() -> Result<host::Native> {
    let agent = env::var_os("NODEMEDIC_BIN").context("NODEMEDIC_BIN names no agent")?;
    say!("the agent on this host, for a minute");
    host::measure(&agent)
}

fn write(path: &Path, page: &str) -> Result<()> {
    fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    say!("written: {}", path.display());
    Ok(())
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
    session::outcomes(&kernel.name, &vm, &tasks, &mut |scenario, outcome| {
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
    vm.machine.clock = Clock::Paced(Shift::FAST);
    Ok(vm)
}
