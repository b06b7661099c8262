//! What host and guest say to each other: a job at the start, then one JSON object a line.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::phase::Busy;
use crate::scenario::Scenario;

/// Where the guest finds its [`Job`].
pub(crate) const JOB: &str = "/job.json";

/// Where the agent is in the guest.
pub(crate) const AGENT: &str = "/usr/bin/nodemedic";

/// Set for the child that runs one scenario.
pub(crate) const SCENARIO_ENV: &str = "NODEMEDIC_SCENARIO";

/// What the matrix calls the kernel, for that child.
pub(crate) const KERNEL_ENV: &str = "NODEMEDIC_SCENARIO_KERNEL";

/// JSON for that child: the [`Task::input`].
pub(crate) const INPUT_ENV: &str = "NODEMEDIC_SCENARIO_INPUT";

/// Set for a fault that needs a process of its own: its name.
pub(crate) const FAULT_ENV: &str = "NODEMEDIC_FAULT";

/// Begins a line of the console that a scenario has for the person at the host.
pub(crate) const TOLD: &str = "told: ";

/// The name of the virtio-serial port that carries [`Event`]s.
pub(crate) const PORT: &str = "events";

/// What a guest is to do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The kernel's name in the matrix.
    pub(crate) kernel: String,
    pub(crate) scenarios: Vec<Task>,
    /// Runs on the console after the scenarios; the guest lives as long as it does.
    pub(crate) then: Option<Vec<String>>,
    /// Bring up the interface to QEMU's user network.
    pub(crate) network: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) limit: Duration,
    /// What the scenario needs to know beside its name; null for most.
    pub(crate) input: Value,
}

impl Task {
    pub(crate) fn new(scenario: &Scenario, input: Value) -> Self {
        Self {
            name: scenario.name.to_owned(),
            limit: scenario.limit,
            input,
        }
    }
}

/// What a guest reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The guest is ready.
    Up {
        release: String,
    },
    Start {
        scenario: String,
    },
    End(ScenarioEnd),
    /// Everything has been run.
    Done,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScenarioEnd {
    pub(crate) scenario: String,
    pub(crate) outcome: Outcome,
    /// In the guest's time, without the cleaning.
    pub(crate) took: Duration,
    pub(crate) busy: Busy,
    /// How long the guest's CPUs were busy with cleaning up after it.
    pub(crate) cleaning: Duration,
    /// What the scenario and all it started have printed.
    pub(crate) log: String,
    /// What could not be cleaned up after it.
    pub(crate) left: Vec<String>,
}

/// What the child that runs a scenario leaves for PID 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) busy: Busy,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Passed,
    Measured(Value),
    Skipped(String),
    Failed(String),
}
