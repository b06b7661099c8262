//! What the dashboards ask for, and whether it exists.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::agent::{self, Metrics};
use crate::check::{self, Check, Verdict, files_of, none, read};
use crate::expression;

/// Metrics of the agent that no dashboard shows, each with the reason.
const NOT_SHOWN: [(&str, &str); 2] = [
    (
        "nodemedic_ailment_coverage",
        "the alert NodemedicAilmentDown tells when it is failed, and the panels of hooks the rest",
    ),
    (
        "nodemedic_bpf_program_recursion_misses_total",
        "part of nodemedic_ailment_lost_events_total already, as reason missed",
    ),
];

/// Metrics of other exporters too: a dashboard shows what it likes of them.
const COMMON: &str = "process_";

/// What Grafana puts in the place of its own variables; any duration will do to parse.
const BUILT_IN: [(&str, &str); 3] = [
    ("$__rate_interval", "5m"),
    ("$__interval", "1m"),
    ("$__range", "1h"),
];

/// A file that Grafana imports: its classic format, which every version reads.
#[derive(Debug, Deserialize)]
pub(crate) struct Dashboard {
    #[serde(skip)]
    pub(crate) file: String,
    pub(crate) id: Option<u64>,
    pub(crate) uid: String,
    pub(crate) panels: Vec<Panel>,
    templating: Templating,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Panel {
    pub(crate) id: u64,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) grid_pos: Place,
    #[serde(default)]
    pub(crate) datasource: Value,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
    #[serde(default)]
    pub(crate) field_config: Value,
    #[serde(default)]
    pub(crate) transformations: Vec<Transformation>,
    /// Of a row that is closed.
    #[serde(default)]
    panels: Vec<Panel>,
}

/// In columns (24 of them) and rows of the grid.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Place {
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) w: u64,
    pub(crate) h: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub(crate) ref_id: String,
    pub(crate) expr: String,
    #[serde(default)]
    legend_format: String,
    pub(crate) datasource: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Transformation {
    #[serde(default)]
    options: Value,
}

#[derive(Debug, Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    query: Value,
}

/// An expression, and the labels of its result that are shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expression: String,
    shows: Vec<String>,
}

/// All dashboards of the checkout.
pub(crate) fn all() -> Result<Vec<Dashboard>> {
    files_of("dashboards", ".json")?
        .iter()
        .map(|path| Dashboard::load(path))
        .collect()
}

impl Dashboard {
    fn load(path: &Path) -> Result<Self> {
        let file = check::name(path);
        let dashboard = Self::parse(&read(path)?).with_context(|| format!("parse {file}"))?;
        Ok(Self { file, ..dashboard })
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// Every panel, those in closed rows too, and the rows themselves.
    pub(crate) fn all_panels(&self) -> impl Iterator<Item = &Panel> {
        self.panels
            .iter()
            .flat_map(|panel| [panel].into_iter().chain(&panel.panels))
    }

    /// Every expression, as Prometheus would get it.
    pub(crate) fn queries(&self) -> Result<Vec<Query>> {
        let mut queries = Vec::new();
        for panel in self.all_panels() {
            queries.extend(panel.queries(&self.file));
        }
        for variable in &self.templating.list {
            queries.extend(variable.query(&self.file)?);
        }
        Ok(queries)
    }

    /// Faults in what it asks for, and the metrics that it uses.
    fn check(&self, known: &Metrics) -> Result<(Vec<String>, BTreeSet<String>)> {
        let (mut faults, mut used) = (Vec::new(), BTreeSet::new());
        for query in self.queries()? {
            let checked = expression::check(&query.expression, known);
            let missing = query
                .shows
                .iter()
                .filter(|label| !checked.shape.carries(label));
            let missing =
                missing.map(|label| format!("it shows label {label}, which is not there"));
            let undefined = self
                .undefined(&query.expression)
                .map(|name| format!("no variable ${name}"));
            let all = checked.faults.into_iter().chain(missing).chain(undefined);
            faults.extend(all.map(|fault| format!("{}: {fault}", query.place)));
            used.extend(checked.metrics);
        }
        Ok((faults, used))
    }

    /// Names behind a `$` that are no variable of the dashboard.
    fn undefined(&self, expression: &str) -> impl Iterator<Item = String> {
        let names = expression.split('$').skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            rest[..end.unwrap_or(rest.len())].to_owned()
        });
        names.filter(|name| {
            self.templating
                .list
                .iter()
                .all(|variable| variable.name != *name)
        })
    }
}

impl Panel {
    fn queries(&self, file: &str) -> impl Iterator<Item = Query> {
        let named = self.transformations.iter().flat_map(Transformation::labels);
        let named: Vec<_> = named.collect();
        self.targets.iter().map(move |target| Query {
            place: format!("{file}, {:?}, {}", self.title, target.ref_id),
            expression: with_built_in(&target.expr),
            shows: between(&target.legend_format, "{{", "}}")
                .chain(named.clone())
                .collect(),
        })
    }
}

impl Transformation {
    /// The labels whose columns it renames.
    fn labels(&self) -> Vec<String> {
        let renamed = self.options["renameByName"].as_object();
        let columns = renamed
            .into_iter()
            .flat_map(|renamed| renamed.keys().cloned());
        columns
            .filter(|column| !["Time", "Value"].contains(&column.as_str()))
            .collect()
    }
}

impl Variable {
    /// `label_values(selector, label)` is Grafana's own: it lists the values of a label.
    fn query(&self, file: &str) -> Result<Option<Query>> {
        if self.kind != "query" {
            return Ok(None);
        }
        let text = self.query["query"]
            .as_str()
            .or(self.query.as_str())
            .unwrap_or_default();
        let inner = text
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let parts = inner.and_then(|inner| inner.rsplit_once(','));
        let (expression, label) = parts
            .with_context(|| format!("{file}, ${}: no label_values in {text:?}", self.name))?;
        Ok(Some(Query {
            place: format!("{file}, ${}", self.name),
            expression: expression.trim().to_owned(),
            shows: vec![label.trim().to_owned()],
        }))
    }
}

fn with_built_in(expression: &str) -> String {
    let mut text = expression.to_owned();
    for (variable, value) in BUILT_IN {
        text = text.replace(variable, value);
    }
    text
}

/// What stands between each pair of marks.
pub(crate) fn between<'a>(
    text: &'a str,
    open: &'a str,
    close: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let pieces = text.split(open).skip(1);
    pieces.filter_map(move |piece| Some(piece.split_once(close)?.0.trim().to_owned()))
}

/// Every metric is shown, or there is a reason for which it is not.
fn coverage(known: &Metrics, used: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for metric in known.all().filter(|metric| metric.name != "up") {
        let left_out = NOT_SHOWN.iter().any(|(name, _)| *name == metric.name);
        if used.contains(&metric.name) == left_out && !metric.name.starts_with(COMMON) {
            let is = if left_out {
                "is shown, and listed as not"
            } else {
                "is not shown"
            };
            faults.push(format!("{} {is}", metric.name));
        }
    }
    faults
}

fn every_expression_asks_for_what_the_agent_has() -> Result<Verdict> {
    agent::program().then(|program| {
        let known = Metrics::of(&program)?;
        let mut faults = Vec::new();
        for dashboard in all()? {
            faults.extend(dashboard.check(&known)?.0);
        }
        none(faults)
    })
}

fn every_metric_is_shown_or_left_out_for_a_reason() -> Result<Verdict> {
    agent::program().then(|program| {
        let known = Metrics::of(&program)?;
        let mut used = BTreeSet::new();
        for dashboard in all()? {
            used.extend(dashboard.check(&known)?.1);
        }
        let gone = NOT_SHOWN
            .iter()
            .filter(|(name, _)| known.series(name).is_err());
        let gone = gone.map(|(name, _)| format!("{name}: listed as not shown, and no metric"));
        none(coverage(&known, &used).into_iter().chain(gone).collect())
    })
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("dashboard::every_expression_asks_for_what_the_agent_has", every_expression_asks_for_what_the_agent_has),
    Check::new("dashboard::every_metric_is_shown_or_left_out_for_a_reason", every_metric_is_shown_or_left_out_for_a_reason),
    Check::new("dashboard::each_fault_is_found", tests::each_fault_is_found),
    Check::new("dashboard::a_metric_that_nobody_shows_is_found", tests::a_metric_that_nobody_shows_is_found),
];

pub(crate) mod tests {
    use std::collections::BTreeSet;

    use anyhow::{Result, ensure};

    use super::{Dashboard, coverage};
    use crate::agent::fake;
    use crate::check::{Verdict, found};

    /// A dashboard of one panel with one expression.
    pub(crate) fn with(expression: &str, legend: &str) -> Result<Dashboard> {
        let uid = "${datasource}";
        Dashboard::parse(&format!(
            r#"{{"id": null, "uid": "fake", "panels": [{{
                "id": 1, "type": "timeseries", "title": "Events", "description": "Events a second.",
                "datasource": {{"type": "prometheus", "uid": "{uid}"}},
                "gridPos": {{"x": 0, "y": 0, "w": 12, "h": 8}},
                "fieldConfig": {{"defaults": {{"unit": "s"}}}},
                "targets": [{{"refId": "A", "expr": {expression:?}, "legendFormat": {legend:?},
                    "datasource": {{"type": "prometheus", "uid": "{uid}"}}}}]
            }}], "templating": {{"list": [
                {{"name": "datasource", "type": "datasource", "query": "prometheus"}},
                {{"name": "side", "type": "query", "query": "label_values(pressure, side)"}}
            ]}}}}"#
        ))
    }

    pub(super) fn each_fault_is_found() -> Result<Verdict> {
        let known = fake::metrics();
        let (faults, used) =
            with("rate(events_total[$__rate_interval])", "{{source}}")?.check(&known)?;
        ensure!(faults.is_empty(), "{faults:?}");
        ensure!(
            used == BTreeSet::from(["events_total".to_owned(), "pressure".to_owned()]),
            "{used:?}"
        );
        let cases = [
            ("rate(beat_total[5m])", "", "no metric beat_total"),
            (
                "rate(events_total[$__rate_intervall])",
                "",
                "cannot be parsed",
            ),
            ("pressure{side=~\"$sied\"}", "", "no variable $sied"),
            ("sum(pressure)", "{{side}}", "shows label side"),
        ];
        for (expression, legend, wanted) in cases {
            found(&with(expression, legend)?.check(&known)?.0, wanted)?;
        }
        Ok(Verdict::Passed)
    }

    pub(super) fn a_metric_that_nobody_shows_is_found() -> Result<Verdict> {
        let faults = coverage(&fake::metrics(), &BTreeSet::from(["pressure".to_owned()]));
        found(&faults, "events_total is not shown")?;
        ensure!(
            !faults.iter().any(|fault| fault.starts_with("pressure ")),
            "{faults:?}"
        );
        Ok(Verdict::Passed)
    }
}
