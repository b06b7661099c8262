//! What the agent takes where there are few virtual services, and where there are very many.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::bench::figures::{AtServices, Services as Figures};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::maladies::ipvs::{self, Services};
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;
use nodemedic_tests::usage;
use serde_json::Value;

use super::agent::Agent;
use super::measured;
use crate::agent::SOON;

const COUNTS: [u32; 2] = [10, 20_000];

const ESTIMATORS: &str = "nodemedic_ipvs_estimation_estimators";

/// Some censuses of the services, and a reading in 5 s, as it comes.
const WATCHED: Duration = Duration::from_secs(120);

/// Often enough to miss no reading.
const LOOK: Duration = Duration::from_secs(2);

pub(crate) fn many_services(guest: &Guest) -> Result<Verdict> {
    let figures = COUNTS.map(|services| at(guest, services));
    measured(&Figures {
        watched: WATCHED.as_secs_f64(),
        at: figures.into_iter().collect::<Result<_>>()?,
    })
}

fn at(guest: &Guest, services: u32) -> Result<AtServices> {
    Services::new(services).add(guest)?;
    let listed = ipvs::listed(guest)?.services;
    ensure!(listed == services, "{listed} services of {services}");
    let agent = Agent::start(guest, "")?;
    let wanted = f64::from(2 * services + 1);
    eventually(4 * SOON, "the agent has counted the services", || {
        let metrics = Metrics::parse(&agent.scrape()?)?;
        let counted = metrics.sum(ESTIMATORS, &[]);
        ensure!(counted == wanted, "{counted} estimators of {wanted}");
        Ok(())
    })?;
    let mut readings = Vec::new();
    let cpu = usage::cpu_share(agent.id(), || watch(&agent, &mut readings))?;
    let memory = usage::memory(agent.id())?;
    agent.stop()?;
    ipvs::clear(guest)?;
    Ok(AtServices {
        services,
        readings,
        cpu,
        memory,
    })
}

/// How long each reading of the ailments of IPVS took, all of them together.
fn watch(agent: &Agent, readings: &mut Vec<f64>) -> Result<()> {
    let mut last = None;
    for _ in 0..WATCHED.as_secs() / LOOK.as_secs() {
        sleep(LOOK);
        let report = agent.whole_report()?;
        let when = report["unix_seconds"].as_f64();
        if when != last {
            last = when;
            readings.push(seconds(&report)?);
        }
    }
    Ok(())
}

fn seconds(report: &Value) -> Result<f64> {
    let ailments = report["ailments"].as_array().into_iter().flatten();
    let ipvs = ailments.filter(|ailment| {
        let name = ailment["name"].as_str();
        name.is_some_and(|name| name.starts_with("ipvs_"))
    });
    let seconds = ipvs.map(|ailment| ailment["measure_seconds"].as_f64());
    seconds.sum::<Option<f64>>().context("no measure_seconds")
}
