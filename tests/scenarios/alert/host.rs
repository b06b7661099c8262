//! The side of Prometheus and Alertmanager.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::alerting::{Alerting, Node, Programs};
use nodemedic_tests::beside;
use nodemedic_tests::port::Port;

use super::Arranged;
use crate::REGISTRY;

/// A node, its ailment, and how long it is to stay treated.
struct Case {
    kernel: &'static str,
    scenario: &'static str,
    rules: &'static str,
    interval: Duration,
}

pub(crate) fn it_keeps_entries_few() -> Result<()> {
    close_the_loop(&Case {
        kernel: "newest",
        scenario: "alert::entries",
        rules: "udp_conntrack",
        interval: Duration::from_secs(45),
    })
}

pub(crate) fn it_ends_delays() -> Result<()> {
    close_the_loop(&Case {
        kernel: "6.12",
        scenario: "alert::connections",
        rules: "ipvs_conn_reuse",
        interval: Duration::from_secs(60),
    })
}

pub(crate) fn it_lets_packets_pass() -> Result<()> {
    close_the_loop(&Case {
        kernel: "6.1",
        scenario: "alert::pings",
        rules: "ipvs_estimation",
        interval: Duration::from_secs(30),
    })
}

pub(crate) fn it_has_memory_ready() -> Result<()> {
    close_the_loop(&Case {
        kernel: "6.12",
        scenario: "alert::reclaim",
        rules: "psi_stall",
        interval: Duration::from_secs(25),
    })
}

fn close_the_loop(case: &Case) -> Result<()> {
    let scenario = REGISTRY.find(case.scenario).context("no such scenario")?;
    let programs = Programs::fetch()?;
    let (metrics, webhook) = (Port::reserve()?, Port::reserve()?);
    let arranged = Arranged {
        pages: metrics.number(),
        webhook: webhook.number(),
        token: format!("{}-{}", std::process::id(), case.scenario),
        node: "node-7".to_owned(),
    };
    let rules = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = rules.join(format!("../dashboards/alerts/{}.yaml", case.rules));
    let alerting = Alerting::start(
        &programs,
        &Node {
            name: &arranged.node,
            metrics: metrics.address(),
            webhook: webhook.address(),
            token: &arranged.token,
            rules: &rules,
            interval: case.interval,
        },
    )?;
    let input = serde_json::to_value(&arranged).context("write the input as JSON")?;
    let ports = [metrics.number(), webhook.number()];
    let figures =
        beside::run(case.kernel, scenario, input, &ports).with_context(|| alerting.logs())?;
    eprintln!("{}: {figures}", case.scenario);
    Ok(())
}
