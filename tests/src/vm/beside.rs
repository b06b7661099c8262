//! A scenario in a VM of its own whose ports lead in, for a test that has something on the host
//! talk to it.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::kernels::Matrix;
use super::{session, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::Scenario;

/// Boots this kernel of the matrix and runs the scenario to its end. Each of the ports, of the
/// host's loopback, leads to the same port in the guest. What it has measured.
pub fn run(kernel: &str, scenario: &Scenario, input: Value, ports: &[u16]) -> Result<Value> {
    let matrix = Matrix::load()?;
    let mut kernels = matrix.kernels.iter();
    let kernel = kernels
        .find(|it| it.name == kernel)
        .with_context(|| format!("the matrix has no kernel {kernel}"))?;
    let mut vm = vm(&matrix, kernel, scenario.shape)?;
    ensure!(
        vm.has_agent(),
        "the guest has no agent: NODEMEDIC_BIN is not set"
    );
    vm.forward(ports);
    let mut end = None;
    let tasks = [Task::new(scenario, input)];
    session::outcomes(&kernel.name, &vm, &tasks, &mut |_, outcome| {
        end = Some(outcome)
    })?;
    match end {
        Some(Outcome::Measured(figures)) => Ok(figures),
        Some(Outcome::Failed(why)) => bail!("{why}"),
        other => bail!("it gave no figures: {other:?}"),
    }
}
