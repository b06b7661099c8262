//! What the agent takes where there are few virtual services, and where there are very many.

use anyhow::{Result, ensure};
use nodemedic_tests::bench::figures::{AtSize, Sizes};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::{self, Services};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::{measured, sizes};
use crate::agent::SOON;

const COUNTS: [u32; 2] = [10, 20_000];

const ESTIMATORS: &str = "nodemedic_ipvs_estimation_estimators";

pub(crate) fn many_services(guest: &Guest) -> Result<Verdict> {
    let figures = COUNTS.map(|services| at(guest, services));
    measured(&Sizes {
        watched: sizes::WATCHED.as_secs_f64(),
        at: figures.into_iter().collect::<Result<_>>()?,
    })
}

fn at(guest: &Guest, services: u32) -> Result<AtSize> {
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
    let figures = sizes::at(agent, services, "ipvs_")?;
    ipvs::clear(guest)?;
    Ok(figures)
}
