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
const CONTAINERS: u32 = 9;

pub(crate) fn many_cgroups(guest: &Guest) -> Result<Verdict> {
    let figures = PODS.map(|pods| at(guest, pods));
    measured(&Sizes {
        watched: sizes::WATCHED.as_secs_f64(),
        at: figures.into_iter().collect::<Result<_>>()?,
    })
}

/// With as many pods as there are then.
fn at(guest: &Guest, pods: u32) -> Result<AtSize> {
    cgroup::make_pods(pods, CONTAINERS)?;
    let agent = Agent::start(guest, "")?;
    eventually(4 * SOON, "a first reading", || {
        let report = agent.report_of("psi_stall")?;
        report["reading"].as_object().context("none").map(drop)
    })?;
    sizes::at(agent, pods * (1 + CONTAINERS), "psi_stall")
}
