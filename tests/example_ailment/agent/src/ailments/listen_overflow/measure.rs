//! Measuring: the kernel's own counter, which needs no BPF, and what the probe counts.

mod netstat;
mod probed;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::probed::Probed;
use super::{
    Settings,
    support::{Plan, SOMAXCONN},
};
use crate::{
    kernel::{netns, sysctl},
    model::{Missing, ProbeReport, ProgramStats},
};

/// What one tick measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Time since the reading before, seconds.
    pub window_seconds: f64,
    /// Our own network namespace, for which the next three are.
    pub netns: u32,
    /// Times that a full listener dropped a connection since boot (`ListenOverflows`).
    pub overflows: u64,
    /// The same since the reading before.
    pub window_overflows: u64,
    /// `net.core.somaxconn`; `None` where there is none.
    pub somaxconn: Option<u64>,
    /// What the probe counted; absent where it is not attached.
    pub probed: Option<ProbedReading>,
}

/// What the probe counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedReading {
    /// Listeners that metrics show, with their drops since they are shown.
    pub shown: Vec<ListenerReading>,
    /// Drops of all others since the agent began.
    pub other: u64,
    /// Listeners with most drops in the window, most first.
    pub top: Vec<ListenerReading>,
    /// Events lost since the agent began, by reason.
    pub lost: Vec<(String, u64)>,
}

/// Drops of one listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerReading {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port.
    pub port: u32,
    /// Connection requests dropped.
    pub drops: u64,
}

impl Reading {
    /// Connection requests that full listeners dropped in the window: those of all network
    /// namespaces where the probe counts, else those of ours.
    pub fn drops(&self) -> u64 {
        let probed = self.probed.as_ref();
        let probed = probed.map_or(0, |it| it.top.iter().map(|it| it.drops).sum());
        probed.max(self.window_overflows)
    }

    /// Events that the probe lost since the agent began, by reason.
    pub fn lost_events(&self) -> Vec<(String, u64)> {
        self.probed
            .as_ref()
            .map(|probed| probed.lost.clone())
            .unwrap_or_default()
    }
}

/// The running measurement.
#[derive(Debug)]
pub struct Measurement {
    probed: Result<Probed, ProbeReport>,
    overflows_before: Option<u64>,
}

impl Measurement {
    /// Attaches what the plan names, as far as the kernel lets it.
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> Self {
        let probed = Probed::attach(plan, settings).map_err(|error| {
            ProbeReport::not_measured(plan.drops.probe.name, &Missing::all_probes(&error))
        });
        Self {
            probed,
            overflows_before: None,
        }
    }

    pub(super) fn probes(&self) -> Vec<ProbeReport> {
        match &self.probed {
            Ok(probed) => probed.reports().to_vec(),
            Err(report) => vec![report.clone()],
        }
    }

    pub(super) fn measure(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let overflows = netstat::listen_overflows()?;
        let before = self.overflows_before.replace(overflows);
        Ok(Reading {
            window_seconds: window.as_secs_f64(),
            netns: netns::own()?,
            overflows,
            window_overflows: overflows.saturating_sub(before.unwrap_or(overflows)),
            somaxconn: sysctl::read_number(SOMAXCONN)?,
            probed: match &mut self.probed {
                Ok(probed) => probed.read()?,
                Err(_) => None,
            },
        })
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probed.iter().flat_map(Probed::programs).collect()
    }
}
