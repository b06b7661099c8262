//! What the agent takes where there are few cgroups, and where there are very many.

use anyhow::{Context as _, Result};
use nodemedic_tests::bench::figures::{AtSize, Sizes};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::cgroup;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::{measured, sizes};
use crate::agent::SOON;

/// Each with its containers: 10 cgroups a pod.
const PODS: [u32; 2] = [1, 500];
const MANY_PODS: [u32; 2] = [500, 2_000];
const CONTAINERS: u32 = 9;

/// Of so many containers one is active.
const ACTIVE: u32 = 10;

/// Each scan reads all that it has to, and no trace over tasks adds to it.
const ALL: &str = "[ailments.psi_stall]\ntriggers = false\ntrace_duration = \"0s\"\n\
                   scan_cpu_ratio = 1.0\nscan_timeout = \"10s\"\n";

/// No task waits.
pub(crate) fn many_cgroups(guest: &Guest) -> Result<Verdict> {
    let figures = PODS.map(|pods| {
        cgroup::make_pods(pods, CONTAINERS, cgroup::CONTROLLERS)?;
        at(guest, pods, "")
    });
    measured(&Sizes {
        watched: sizes::WATCHED.as_secs_f64(),
        at: figures.into_iter().collect::<Result<_>>()?,
    })
}

/// A tenth of them is active: as if scans might take all of a CPU, and at the defaults.
pub(crate) fn active_cgroups(guest: &Guest) -> Result<Verdict> {
    let mut figures = Vec::new();
    for pods in MANY_PODS {
        // With the controllers of memory and disks the guest would need gigabytes for itself.
        cgroup::make_pods(pods, CONTAINERS, "+cpu")?;
        let wanderers = cgroup::wander(guest, pods, CONTAINERS, ACTIVE)?;
        for config in [ALL, ""] {
            figures.push(at(guest, pods, config)?);
        }
        drop(wanderers);
    }
    measured(&Sizes {
        watched: sizes::WATCHED.as_secs_f64(),
        at: figures,
    })
}

/// With as many pods as there are.
fn at(guest: &Guest, pods: u32, config: &str) -> Result<AtSize> {
    let agent = Agent::start(guest, config)?;
    eventually(4 * SOON, "a first reading", || {
        let report = agent.report_of("psi_stall")?;
        report["reading"].as_object().context("none").map(drop)
    })?;
    sizes::at(agent, pods * (1 + CONTAINERS), "psi_stall")
}
