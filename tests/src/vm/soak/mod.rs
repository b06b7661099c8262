//! Hours of a node on which faults come and go, in one boot of one kernel, in virtual time.

pub mod figures;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use self::figures::Report;
use super::interrupt::{self, Watched};
use super::kernels::Matrix;
use super::report::say;
use super::session::Session;
use super::vm;
use crate::protocol::{Outcome, Task};
use crate::scenario::Registry;

const SCENARIO: &str = "soak::hours";

/// Beyond the hours, of the guest's time: the last round ends when it is done.
const GRACE: Duration = Duration::from_hours(1);

/// What the scenario is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Plan {
    /// Of the guest's time.
    pub hours: f64,
    /// Decides the order of what happens.
    pub seed: u32,
}

/// Runs on the first kernel that is selected. The table of its figures is on standard output, all
/// else on standard error. An error says what went wrong on the node, or which figure grew.
pub(super) fn run(matrix: &Matrix, registry: &Registry) -> Result<ExitCode> {
    let kernel = matrix.kernels.first().context("no kernel is selected")?;
    let scenario = registry.find(SCENARIO).context("there is no soak")?;
    let vm = vm(matrix, kernel, scenario.shape)?;
    ensure!(
        vm.has_agent(),
        "the soak has no agent: NODEMEDIC_BIN is not set"
    );
    let plan = Plan {
        hours: hours()?,
        seed: vm.machine.seed,
    };
    let input = serde_json::to_value(plan).context("write the input as JSON")?;
    let task = Task {
        limit: Duration::from_secs_f64(plan.hours * 3600.0) + GRACE,
        ..Task::new(scenario, input)
    };
    interrupt::catch()?;
    say!(
        "kernel {}: a soak of {} h of guest time, seed {}; Ctrl-C ends it",
        kernel.name,
        plan.hours,
        plan.seed
    );
    let mut session = Session::start(&kernel.name, &vm, &[task])?;
    match interrupt::watch(&mut session)? {
        Watched::Told(signal) => bail!("{signal}: the soak was ended"),
        Watched::Ended(Outcome::Measured(report)) => {
            let report: Report = serde_json::from_value(report).context("read the report")?;
            print!("{report}");
            report.judge()?;
            Ok(ExitCode::SUCCESS)
        }
        Watched::Ended(Outcome::Failed(why)) => bail!("{}", session.explain(&why)),
        Watched::Ended(outcome) => bail!("the soak gave no figures: {outcome:?}"),
    }
}

fn hours() -> Result<f64> {
    let text = env::var("NODEMEDIC_SOAK_HOURS").context("read NODEMEDIC_SOAK_HOURS")?;
    match text.parse() {
        Ok(hours) if hours > 0.0 && hours <= 10_000.0 => Ok(hours),
        _ => bail!("NODEMEDIC_SOAK_HOURS={text:?}: a number of hours above 0 is wanted"),
    }
}
