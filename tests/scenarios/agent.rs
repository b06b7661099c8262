//! The agent in a guest, as its users see it: its pages, its log, its exit code.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Output, Process};
use nodemedic_tests::http;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::phase::{Phase, during};
use serde_json::Value;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 19_110);

/// Time between the agent's readings.
const A_SECOND: &str = "1s";

/// The agent reads once a second here; this is several readings, on an emulated CPU.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The tables that an agent has all of, or one.
const AILMENTS: &[&str] = &[
    "udp_conntrack",
    "ipvs_conn_reuse",
    "ipvs_estimation",
    "psi_stall",
];

/// A running agent, asked for one of its ailments. Dropping it kills it and shows its log.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    ailment: &'static str,
}

/// What one is started with.
#[derive(Debug)]
struct Launch<'a> {
    /// Another program that runs it, and takes its privileges for instance.
    runner: &'a [&'a str],
    ailment: &'static str,
    /// Whether it observes the other ailments too. They take their time to attach; and under
    /// emulation the CPU is so busy that `psi_stall` is sick, which is another scenario's matter.
    whole: bool,
    interval: &'a str,
    /// Lines of the ailment's table, and tables behind it.
    settings: &'a str,
}

impl Agent {
    /// Starts it with a reading a second and these lines in `[ailments.udp_conntrack]`, the only
    /// ailment that it observes, and waits until it says that it is ready.
    pub(crate) fn start(guest: &Guest, settings: &str) -> Result<Self> {
        Self::start_for(guest, "udp_conntrack", settings)
    }

    /// As [`Agent::start`], for another ailment and its table.
    pub(crate) fn start_for(guest: &Guest, ailment: &'static str, settings: &str) -> Result<Self> {
        let launch = Launch::of(ailment, settings);
        launch.start(guest)
    }

    /// As [`Agent::start_for`], with readings so far apart.
    pub(crate) fn start_every(
        guest: &Guest,
        interval: &str,
        ailment: &'static str,
        settings: &str,
    ) -> Result<Self> {
        let launch = Launch {
            interval,
            ..Launch::of(ailment, settings)
        };
        launch.start(guest)
    }

    /// As [`Agent::start_for`], with all ailments, as users have it.
    pub(crate) fn start_whole(
        guest: &Guest,
        ailment: &'static str,
        settings: &str,
    ) -> Result<Self> {
        let launch = Launch {
            whole: true,
            ..Launch::of(ailment, settings)
        };
        launch.start(guest)
    }

    /// As [`Agent::start_whole`], with readings as far apart as users have them.
    pub(crate) fn start_as_shipped(guest: &Guest, settings: &str) -> Result<Self> {
        let launch = Launch {
            whole: true,
            interval: "5s",
            ..Launch::of("udp_conntrack", settings)
        };
        launch.start(guest)
    }

    /// As [`Agent::start_for`], with readings so far apart that none but the first comes by itself.
    pub(crate) fn start_idle(guest: &Guest, ailment: &'static str) -> Result<Self> {
        let launch = Launch {
            interval: "1h",
            ..Launch::of(ailment, "")
        };
        launch.start(guest)
    }

    /// As [`Agent::start_whole`] for `udp_conntrack`, run by another program.
    pub(crate) fn start_under(guest: &Guest, runner: &[&str], settings: &str) -> Result<Self> {
        let launch = Launch {
            runner,
            whole: true,
            ..Launch::of("udp_conntrack", settings)
        };
        launch.start(guest)
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// By SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(SOON).map(drop)
    }

    /// One of its pages.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        http::get(ADDRESS, path)
    }

    pub(crate) fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.page("/metrics")?)
    }

    /// The whole report.
    pub(crate) fn node(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.page("/report")?)?)
    }

    /// The part of the report that is its ailment's.
    pub(crate) fn report(&self) -> Result<Value> {
        self.report_of(self.ailment)
    }

    /// The part that is another ailment's.
    pub(crate) fn report_of(&self, name: &str) -> Result<Value> {
        let report = self.node()?;
        let mut ailments = report["ailments"].as_array().into_iter().flatten();
        let ailment = ailments
            .find(|ailment| ailment["name"] == name)
            .with_context(|| format!("the report has no ailment {name}"))?;
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
                    guest.rmmod(module).with_context(|| self.who_uses(module))?;
                }
            }
            Ok(())
        })
    }

    /// What is known of who keeps a module: its references, and what the agent's ailments have of it.
    fn who_uses(&self, module: &str) -> String {
        let references = fs::read_to_string(format!("/sys/module/{module}/refcnt"));
        let node = self.node().unwrap_or_default();
        let ailments = node["ailments"].as_array().into_iter().flatten();
        let coverage: Vec<_> = ailments
            .map(|it| format!("{}: {}", it["name"], it["coverage"]))
            .collect();
        let lists = fs::read_to_string("/proc/net/ip_vs");
        format!("references {references:?}; {coverage:?}; {lists:?}")
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
        self.finds_one_of(self.ailment, kind, limit)
    }

    /// The same of another ailment.
    pub(crate) fn finds_one_of(&self, ailment: &str, kind: &str, limit: Duration) -> Result<Value> {
        eventually(limit, &format!("{kind} is found"), || {
            let report = self.report_of(ailment)?;
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

impl<'a> Launch<'a> {
    fn of(ailment: &'static str, settings: &'a str) -> Self {
        Self {
            runner: &[],
            ailment,
            whole: false,
            interval: A_SECOND,
            settings,
        }
    }

    fn start(&self, guest: &Guest) -> Result<Agent> {
        during(Phase::Agent, || self.start_and_wait(guest))
    }

    fn start_and_wait(&self, guest: &Guest) -> Result<Agent> {
        let file = "/tmp/nodemedic.toml";
        fs::write(file, self.config()).with_context(|| format!("write {file}"))?;
        let mut command = guest.agent(&["run", "--config", file])?;
        if let [program, arguments @ ..] = self.runner {
            let mut under = Command::new(program);
            under
                .args(arguments)
                .arg(command.get_program())
                .args(command.get_args());
            command = under;
        }
        let process = guest.start("agent", &mut command)?;
        let agent = Agent {
            process,
            ailment: self.ailment,
        };
        eventually(6 * SOON, "the agent is ready", || {
            http::get(ADDRESS, "/readyz")
        })?;
        Ok(agent)
    }

    fn config(&self) -> String {
        let (ailment, interval, settings) = (self.ailment, self.interval, self.settings);
        let others = AILMENTS.iter().filter(|other| **other != ailment);
        let off: String = others
            .filter(|_| !self.whole)
            .map(|other| format!("[ailments.{other}]\nenabled = false\n"))
            .collect();
        format!(
            "[agent]\nlisten = \"{ADDRESS}\"\ninterval = \"{interval}\"\n\
             {off}[ailments.{ailment}]\n{settings}\n"
        )
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
    let mut command = guest.agent(arguments)?;
    during(Phase::Agent, || guest.run(&mut command, 4 * SOON))
}

/// A few seconds of `nodemedic check`, for these ailments or for all.
pub(crate) fn check(guest: &Guest, ailments: &[&str]) -> Result<Output> {
    let mut command = guest.agent(&["check", "--window", "3s"])?;
    during(Phase::Agent, || guest.run(command.args(ailments), 4 * SOON))
}
