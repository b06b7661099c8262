//! The agent in a guest, as its users see it: its pages, its log, its exit code.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Output, Process};
use nodemedic_tests::http;
use nodemedic_tests::metrics::Metrics;
use serde_json::Value;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 19_110);

/// Time between the agent's readings.
const A_SECOND: &str = "1s";

/// The agent reads once a second here; this is several readings, on an emulated CPU.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A running agent, asked for one of its ailments. Dropping it kills it and shows its log.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    ailment: &'static str,
}

impl Agent {
    /// Starts it with a reading a second and these lines in `[ailments.udp_conntrack]`, and waits
    /// until it says that it is ready.
    pub(crate) fn start(guest: &Guest, settings: &str) -> Result<Self> {
        Self::start_under(guest, &[], settings)
    }

    /// As [`Agent::start`], for another ailment and its table.
    pub(crate) fn start_for(guest: &Guest, ailment: &'static str, settings: &str) -> Result<Self> {
        Self::launch(guest, &[], ailment, A_SECOND, settings)
    }

    /// As [`Agent::start_for`], with readings so far apart that none but the first comes by itself.
    pub(crate) fn start_idle(guest: &Guest, ailment: &'static str) -> Result<Self> {
        Self::launch(guest, &[], ailment, "1h", "")
    }

    /// As [`Agent::start`], run by another program, which takes its privileges for instance.
    pub(crate) fn start_under(guest: &Guest, runner: &[&str], settings: &str) -> Result<Self> {
        Self::launch(guest, runner, "udp_conntrack", A_SECOND, settings)
    }

    fn launch(
        guest: &Guest,
        runner: &[&str],
        ailment: &'static str,
        interval: &str,
        settings: &str,
    ) -> Result<Self> {
        let file = "/tmp/nodemedic.toml";
        let config = format!(
            "[agent]\nlisten = \"{ADDRESS}\"\ninterval = \"{interval}\"\n\
             [ailments.{ailment}]\n{settings}\n"
        );
        std::fs::write(file, config).with_context(|| format!("write {file}"))?;
        let mut command = guest.agent(&["run", "--config", file])?;
        if let [program, arguments @ ..] = runner {
            let mut under = Command::new(program);
            under
                .args(arguments)
                .arg(command.get_program())
                .args(command.get_args());
            command = under;
        }
        let process = guest.start("agent", &mut command)?;
        let agent = Self { process, ailment };
        eventually(6 * SOON, "the agent is ready", || {
            http::get(ADDRESS, "/readyz")
        })?;
        Ok(agent)
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&http::get(ADDRESS, "/metrics")?)
    }

    /// The part of the report that is its ailment's.
    pub(crate) fn report(&self) -> Result<Value> {
        let report: Value = serde_json::from_str(&http::get(ADDRESS, "/report")?)?;
        let mut ailments = report["ailments"].as_array().into_iter().flatten();
        let ailment = ailments
            .find(|ailment| ailment["name"] == self.ailment)
            .with_context(|| format!("the report has no ailment {}", self.ailment))?;
        Ok(ailment.clone())
    }

    /// Waits until the metrics are as they should be.
    pub(crate) fn shows(
        &self,
        what: &str,
        limit: Duration,
        check: impl Fn(&Metrics) -> Result<()>,
    ) -> Result<()> {
        eventually(limit, what, || check(&self.metrics()?))
    }

    /// Waits until the report has just these findings.
    pub(crate) fn finds(&self, kinds: &[&str], limit: Duration) -> Result<Value> {
        eventually(limit, &format!("the findings are {kinds:?}"), || {
            let report = self.report()?;
            let found = findings(&report);
            ensure!(!report["reading"].is_null(), "there is no reading yet");
            ensure!(
                found == kinds,
                "they are {found:?}; the reading: {}",
                report["reading"]
            );
            Ok(report)
        })
    }

    /// Unloads modules, the first on top, as soon as the agent lets it be.
    pub(crate) fn lets_go_of(&self, guest: &Guest, modules: &[&str]) -> Result<()> {
        eventually(2 * SOON, "the agent does not keep the module", || {
            for module in modules {
                if guest.is_loaded(module)? {
                    guest.rmmod(module)?;
                }
            }
            Ok(())
        })
    }

    /// Waits until it says that it waits for this module.
    pub(crate) fn waits_for(&self, module: &str) -> Result<()> {
        eventually(SOON, "the agent waits for the module", || {
            let coverage = self.report()?["coverage"].clone();
            ensure!(
                coverage["state"] == "waiting" && coverage["module"] == module,
                "{coverage}"
            );
            Ok(())
        })
    }

    /// Waits until a finding of this kind is among those of the report.
    pub(crate) fn finds_one(&self, kind: &str, limit: Duration) -> Result<Value> {
        eventually(limit, &format!("{kind} is found"), || {
            let report = self.report()?;
            let finding = report["findings"]
                .as_array()
                .and_then(|findings| findings.iter().find(|finding| finding["kind"] == kind))
                .with_context(|| {
                    format!("findings: {:?}; {}", findings(&report), report["reading"])
                })?;
            Ok(finding.clone())
        })
    }
}

/// The kinds of a report's findings.
fn findings(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().into_iter().flatten();
    findings
        .filter_map(|finding| finding["kind"].as_str())
        .collect()
}

/// A verb about treatments, of the agent that runs or of its state.
pub(crate) fn verb(guest: &Guest, arguments: &[&str]) -> Result<Output> {
    guest.run(&mut guest.agent(arguments)?, 4 * SOON)
}

/// A few seconds of `nodemedic check`.
pub(crate) fn check(guest: &Guest, arguments: &[&str]) -> Result<Output> {
    let mut command = guest.agent(&["check", "--window", "3s"])?;
    guest.run(command.args(arguments), 4 * SOON)
}
