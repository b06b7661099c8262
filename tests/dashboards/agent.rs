//! What the agent says of itself.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::check::Available;

/// Labels that Prometheus gives every series of a target.
pub(crate) const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// A metric, as `nodemedic metrics --list --json` prints it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    labels: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// All metrics that an expression may name.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(Vec<Metric>);

/// The series under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// The metric that they belong to.
    pub(crate) metric: String,
    /// The parts of a histogram are counters.
    pub(crate) is_counter: bool,
    pub(crate) labels: BTreeSet<String>,
}

/// The agent's program, if the environment names one.
pub(crate) fn program() -> Available<OsString> {
    match env::var_os("NODEMEDIC_BIN") {
        Some(program) => Available::Yes(program),
        None => Available::No {
            why: "NODEMEDIC_BIN names no agent; `cargo xtask test` sets it".to_owned(),
        },
    }
}

impl Metrics {
    /// Those that the agent lists, and the one that Prometheus makes of every target.
    pub(crate) fn of(program: &OsString) -> Result<Self> {
        let output = Command::new(program)
            .args(["metrics", "--list", "--json"])
            .output()
            .with_context(|| format!("start {}", program.display()))?;
        ensure!(
            output.status.success(),
            "`{} metrics --list --json` ended with {}: {}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let listed: Vec<Metric> =
            serde_json::from_slice(&output.stdout).context("read the agent's list of metrics")?;
        Ok(Self::new(listed))
    }

    fn new(mut listed: Vec<Metric>) -> Self {
        listed.push(Metric {
            name: "up".to_owned(),
            kind: Kind::Gauge,
            labels: Vec::new(),
        });
        Self(listed)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Metric> {
        self.0.iter()
    }

    /// The series of a name; the error says what is wrong with it.
    pub(crate) fn series(&self, name: &str) -> Result<Series, String> {
        let found = self.0.iter().find_map(|metric| metric.series(name));
        found.unwrap_or_else(|| Err(format!("the agent has no metric {name}")))
    }
}

impl Metric {
    /// The series that this metric has under a name, if any.
    fn series(&self, name: &str) -> Option<Result<Series, String>> {
        let rest = name.strip_prefix(self.name.as_str())?;
        match (self.kind, rest) {
            (Kind::Counter | Kind::Gauge, "") | (Kind::Histogram, "_sum" | "_count") => {
                Some(Ok(self.with(&[])))
            }
            (Kind::Histogram, "_bucket") => Some(Ok(self.with(&["le"]))),
            (Kind::Histogram, "") => Some(Err(format!(
                "{name} is a histogram: its series are {name}_bucket, _sum and _count"
            ))),
            _ => None,
        }
    }

    fn with(&self, more: &[&str]) -> Series {
        let own = self.labels.iter().map(String::as_str);
        let labels = own.chain(TARGET_LABELS).chain(more.iter().copied());
        Series {
            metric: self.name.clone(),
            is_counter: self.kind != Kind::Gauge,
            labels: labels.map(str::to_owned).collect(),
        }
    }
}

pub(crate) mod fake {
    //! A small agent for the checks of the checks.

    use super::{Kind, Metric, Metrics};

    pub(crate) fn metrics() -> Metrics {
        let metric = |name: &str, kind, labels: &[&str]| Metric {
            name: name.to_owned(),
            kind,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        };
        Metrics::new(vec![
            metric("events_total", Kind::Counter, &["source"]),
            metric("pressure", Kind::Gauge, &["side"]),
            metric("pressure_limit", Kind::Gauge, &[]),
            metric("pause_seconds", Kind::Histogram, &["source"]),
        ])
    }
}
