//! For a person at work: a VM on this terminal that ends in a shell.

use std::env;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::kernels::Matrix;
use super::machine::Clock;
use super::report::say;
use super::trials::Boot;
use super::vm;
use crate::protocol::Job;

/// Boots the first kernel that is selected, runs its scenarios, and stays.
pub(crate) fn run(matrix: &Matrix, boots: Vec<Boot>) -> Result<ExitCode> {
    let boot = boots
        .into_iter()
        .next()
        .context("the filter selects nothing to boot")?;
    let mut vm = vm(matrix, &boot.kernel, boot.shape)?;
    // Somebody types at it.
    vm.machine.clock = Clock::Host;
    if let Ok(port) = env::var("NODEMEDIC_VM_FORWARD") {
        let port = port
            .parse()
            .with_context(|| format!("NODEMEDIC_VM_FORWARD={port:?}"))?;
        vm.forward(&[port]);
    }
    let job = Job {
        kernel: boot.kernel.name.clone(),
        scenarios: boot.tasks,
        then: Some(vec!["bash".into(), "-i".into()]),
        ..Job::default()
    };
    say!("kernel {}: `exit` or Ctrl-A X ends it", boot.kernel.name);
    vm.attach(&job)?;
    Ok(ExitCode::SUCCESS)
}
