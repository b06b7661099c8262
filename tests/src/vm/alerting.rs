//! Debian's Prometheus and Alertmanager on this machine's loopback, with this project's rules, at
//! intervals of seconds.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::boot::die_with_us;
use super::port::Port;
use super::tools;

/// What both need to know of one node.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    /// What alerts call it: the label `instance`.
    pub name: &'a str,
    /// Where its metrics are.
    pub metrics: SocketAddr,
    /// Where it takes alerts.
    pub webhook: SocketAddr,
    /// What it asks of those who send them.
    pub token: &'a str,
    /// The file of `dashboards/alerts` that is in force.
    pub rules: &'a Path,
    /// After an alert has been sent, what follows is sent no sooner than this.
    pub interval: Duration,
}

/// Both programs, until this is dropped.
#[derive(Debug)]
pub struct Alerting {
    _programs: [Program; 2],
    _ports: [Port; 2],
    folder: TempDir,
}

/// The programs, fetched before a VM waits for them.
#[derive(Debug)]
pub struct Programs {
    prometheus: PathBuf,
    /// The folder of its package.
    alertmanager: PathBuf,
}

impl Programs {
    /// Out of Debian's packages, whose services are not installed.
    pub fn fetch() -> Result<Self> {
        Ok(Self {
            prometheus: tools::debian_program("prometheus", "usr/bin/prometheus")?,
            alertmanager: tools::debian_package(tools::ALERTMANAGER)?,
        })
    }
}

impl Alerting {
    /// Starts both. The node need not be there yet: both try again.
    pub fn start(programs: &Programs, node: &Node<'_>) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for Prometheus")?;
        let ports = [Port::reserve()?, Port::reserve()?];
        let [prometheus_at, alertmanager_at] = [ports[0].address(), ports[1].address()];
        let path = |name: &str| folder.path().join(name);

        write(&path("token"), node.token)?;
        let receiver = receiver(node, &path("token"));
        write(&path("alertmanager.yml"), &receiver.to_string())?;
        let mut alertmanager = tools::alertmanager(&programs.alertmanager);
        alertmanager
            .arg(option("config.file", path("alertmanager.yml").display()))
            .arg(option("storage.path", path("alerts").display()))
            .arg(option("web.listen-address", alertmanager_at))
            .arg("--cluster.listen-address=");

        let rules = fs::read_to_string(node.rules)
            .with_context(|| format!("read {}", node.rules.display()))?;
        write(&path("rules.yml"), &hastened(&rules))?;
        let scraped = scraped(node, alertmanager_at, &path("rules.yml"));
        write(&path("prometheus.yml"), &scraped.to_string())?;
        let mut prometheus = Command::new(&programs.prometheus);
        prometheus
            .arg(option("config.file", path("prometheus.yml").display()))
            .arg(option("storage.tsdb.path", path("samples").display()))
            .arg(option("web.listen-address", prometheus_at))
            .arg("--rules.alert.resend-delay=1s");

        Ok(Self {
            _programs: [
                Program::start(&mut alertmanager, &path("alertmanager.log"))?,
                Program::start(&mut prometheus, &path("prometheus.log"))?,
            ],
            _ports: ports,
            folder,
        })
    }

    /// What both have said, for a failure's message.
    pub fn logs(&self) -> String {
        let log = |name| {
            let path = self.folder.path().join(name);
            let log = fs::read_to_string(path).unwrap_or_default();
            format!("--- {name}:\n{log}")
        };
        [log("alertmanager.log"), log("prometheus.log")].concat()
    }
}

/// JSON is YAML.
fn receiver(node: &Node<'_>, token: &Path) -> Value {
    json!({
        "route": {
            "receiver": "nodemedic",
            "group_by": ["..."],
            "group_wait": "1s",
            "group_interval": format!("{}s", node.interval.as_secs()),
            "repeat_interval": "1h",
        },
        "receivers": [{
            "name": "nodemedic",
            "webhook_configs": [{
                "url": format!("http://{}/alertmanager", node.webhook),
                "send_resolved": true,
                "max_alerts": 0,
                "http_config": {"authorization": {"credentials_file": token}},
            }],
        }],
    })
}

fn scraped(node: &Node<'_>, alertmanager: SocketAddr, rules: &Path) -> Value {
    json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [{
            "job_name": "nodemedic",
            "static_configs": [{"targets": [node.metrics]}],
            "relabel_configs": [{"target_label": "instance", "replacement": node.name}],
        }],
    })
}

/// The same rules, over seconds instead of minutes, and without waiting.
fn hastened(rules: &str) -> String {
    let lines = rules.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("for:"));
    let mut hastened = lines.collect::<Vec<_>>().join("\n");
    for window in ["[5m]", "[10m]", "[15m]", "[30m]"] {
        hastened = hastened.replace(window, "[10s]");
    }
    hastened
}

fn option(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// A program that ends when this is dropped, or with us.
#[derive(Debug)]
struct Program(Child);

impl Program {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("copy a file")?)
            .stderr(log);
        die_with_us(command);
        let program = command.get_program().display().to_string();
        let child = command
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok(Self(child))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do, and nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hastened_rules_wait_for_nothing() {
        let rules = "- alert: A\n  expr: increase(a[5m]) > 0\n  for: 5m\n  labels: {}";
        let wanted = "- alert: A\n  expr: increase(a[10s]) > 0\n  labels: {}";
        assert_eq!(hastened(rules), wanted);
    }
}
