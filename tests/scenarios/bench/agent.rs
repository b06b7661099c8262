//! The agent as a thing to be measured.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use nodemedic_tests::bench::figures::Program;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::http;
use serde_json::Value;

use crate::agent::SOON;

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 19_110);
const CONFIG: &str = "/tmp/bench.toml";

/// Dropping it kills it.
#[derive(Debug)]
pub(super) struct Agent {
    process: Process,
}

impl Agent {
    /// With this configuration; the rest is as the agent has it by itself. Waits until it is ready.
    pub(super) fn start(guest: &Guest, config: &str) -> Result<Self> {
        fs::write(CONFIG, config).with_context(|| format!("write {CONFIG}"))?;
        let process = guest.start("agent", &mut guest.agent(&["run", "--config", CONFIG])?)?;
        eventually(2 * SOON, "the agent is ready", || {
            http::get(ADDRESS, "/readyz")
        })?;
        Ok(Self { process })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its page of metrics.
    pub(super) fn scrape(&self) -> Result<String> {
        http::get(ADDRESS, "/metrics")
    }

    pub(super) fn whole_report(&self) -> Result<Value> {
        serde_json::from_str(&http::get(ADDRESS, "/report")?).context("read the report")
    }

    /// The part of the report that is `udp_conntrack`'s.
    pub(super) fn report(&self) -> Result<Value> {
        self.report_of("udp_conntrack")
    }

    pub(super) fn report_of(&self, name: &str) -> Result<Value> {
        let report = self.whole_report()?;
        let mut ailments = report["ailments"].as_array().into_iter().flatten();
        let ailment = ailments.find(|ailment| ailment["name"] == name);
        ailment.cloned().with_context(|| format!("no {name}"))
    }

    /// What the kernel counts of an ailment's programs, as the report has it.
    pub(super) fn programs(&self, ailment: &str) -> Result<Vec<Program>> {
        let report = self.report_of(ailment)?;
        let programs = report["programs"].as_array().context("no programs")?;
        programs.iter().map(program).collect()
    }

    /// Asks it to end, and waits until its probes are gone.
    pub(super) fn stop(mut self) -> Result<()> {
        self.process.stop(SOON).map(drop)
    }
}

/// Those that ran, under a name that tells whose they are.
pub(super) fn that_ran(programs: Vec<Program>, label: &str) -> Vec<Program> {
    programs
        .into_iter()
        .filter(|program| program.runs > 0)
        .map(|program| Program {
            name: format!("{label}: {}", program.name),
            ..program
        })
        .collect()
}

fn program(value: &Value) -> Result<Program> {
    let seconds = value["run_seconds"].as_f64().context("no run_seconds")?;
    Ok(Program {
        name: value["name"].as_str().context("no name")?.to_owned(),
        runs: value["runs"].as_u64().context("no runs")?,
        nanoseconds: (seconds * 1e9) as u64,
    })
}
