//! The alert rules: what they ask for, and what they tell whom they wake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::agent::{self, Metrics};
use crate::check::{self, Check, Verdict, files_of, none, read};
use crate::dashboard::between;
use crate::expression;
use crate::pages;
use crate::shape::Shape;

/// Where the rules and their tests are.
pub(crate) const FOLDER: &str = "dashboards/alerts";

/// What the tests of `x.yaml` are called.
const TESTS: &str = "_test.yaml";

/// Where the pages are that `runbook_url` leads to: the one base address of all rules.
const RUNBOOKS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// Where a template asks Prometheus for something.
const QUERY_OPENS: [&str; 2] = ["query `", "printf `"];

/// What every alert tells: what is the matter, and with whom; what it does to them; what to do.
const TOLD: [&str; 3] = ["summary", "description", "action"];

#[derive(Debug, Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct TestFile {
    tests: Vec<Test>,
}

#[derive(Debug, Deserialize)]
struct Test {
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Debug, Deserialize)]
struct AlertTest {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<Value>,
}

/// The files with rules.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let mut files = files_of(FOLDER, ".yaml")?;
    files.retain(|path| !check::name(path).ends_with(TESTS));
    Ok(files)
}

/// The tests of a file with rules.
pub(crate) fn tests_of(rules: &Path) -> PathBuf {
    let stem = rules
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    rules.with_file_name(stem + TESTS)
}

fn rules_of(text: &str) -> Result<Vec<Rule>> {
    let file: RuleFile = serde_saphyr::from_str(text).context("parse rules")?;
    Ok(file
        .groups
        .into_iter()
        .flat_map(|group| group.rules)
        .collect())
}

impl Rule {
    fn faults(&self, known: &Metrics) -> Vec<String> {
        let checked = expression::check(&self.expr, known);
        let mut faults = checked.faults;
        for text in self.annotations.values() {
            faults.extend(template_faults(text, &checked.shape, known));
        }
        let told = TOLD
            .into_iter()
            .filter(|name| !self.annotations.contains_key(*name));
        faults.extend(told.map(|name| format!("no annotation {name}")));
        let severity = self
            .labels
            .get("severity")
            .map(String::as_str)
            .unwrap_or_default();
        if !SEVERITIES.contains(&severity) {
            faults.push(format!(
                "severity {severity:?} is none of {}",
                SEVERITIES.join(", ")
            ));
        }
        faults.extend(self.page().err().map(|error| format!("{error:#}")));
        faults
            .into_iter()
            .map(|fault| format!("{}: {fault}", self.alert))
            .collect()
    }

    /// The page that it sends its reader to, with the section.
    fn page(&self) -> Result<()> {
        let page = self
            .annotations
            .get("runbook_url")
            .context("no annotation runbook_url")?;
        let page = page
            .strip_prefix(RUNBOOKS)
            .with_context(|| format!("{page} is not below {RUNBOOKS}"))?;
        pages::resolve(&check::root(), page)
    }
}

/// Labels that the template takes from the alert, and expressions that it asks Prometheus for.
fn template_faults(text: &str, shape: &Shape, known: &Metrics) -> Vec<String> {
    let labels = text.split("$labels.").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    });
    let missing = labels.filter(|label| !shape.carries(label));
    let missing = missing.map(|label| format!("it tells label {label}, which is not there"));
    let asked = QUERY_OPENS.iter().flat_map(|open| between(text, open, "`"));
    let asked =
        asked.flat_map(|query| expression::check(&query.replace("%q", "\"x\""), known).faults);
    missing.chain(asked).collect()
}

/// Alerts that lack a test in which they fire, or one in which they do not.
fn untested(rules: &[Rule], tests: &[Test]) -> Vec<String> {
    let mut faults = Vec::new();
    for Rule { alert, .. } in rules {
        let all = tests.iter().flat_map(|test| &test.alert_rule_test);
        let (healthy, sick): (Vec<_>, Vec<_>) = all
            .filter(|test| test.alertname == *alert)
            .partition(|test| test.exp_alerts.is_empty());
        if sick.is_empty() {
            faults.push(format!("{alert}: no test in which it fires"));
        }
        if healthy.is_empty() {
            faults.push(format!("{alert}: no test in which it stays silent"));
        }
    }
    faults
}

fn every_rule_asks_for_what_the_agent_has() -> Result<Verdict> {
    agent::program().then(|program| {
        let known = Metrics::of(&program)?;
        let mut faults = Vec::new();
        for file in files()? {
            let rules = rules_of(&read(&file)?).with_context(|| check::name(&file))?;
            faults.extend(rules.iter().flat_map(|rule| rule.faults(&known)));
        }
        none(faults)
    })
}

/// What an alert on an ailment has to say to be treated: which ailment, and which finding, by
/// which its page has a section.
fn unlabelled(ailment: &str, rules: &[Rule]) -> Vec<String> {
    let mut faults = Vec::new();
    for Rule {
        alert,
        labels,
        annotations,
        ..
    } in rules
    {
        let section = annotations
            .get("runbook_url")
            .and_then(|page| page.split_once('#'));
        let kind = section.map(|(_, section)| section.replace('-', "_"));
        for (label, wanted) in [("ailment", Some(ailment)), ("kind", kind.as_deref())] {
            if labels.get(label).map(String::as_str) != wanted {
                faults.push(format!("{alert}: its label {label} is not {wanted:?}"));
            }
        }
    }
    faults
}

fn every_alert_on_an_ailment_says_what_to_treat() -> Result<Verdict> {
    let mut faults = Vec::new();
    for file in files()? {
        let name = check::name(&file);
        let stem = name.trim_end_matches(".yaml");
        if check::root()
            .join(format!("docs/ailments/{stem}.md"))
            .exists()
        {
            faults.extend(unlabelled(
                stem,
                &rules_of(&read(&file)?).context(name.clone())?,
            ));
        }
    }
    none(faults)
}

fn every_alert_is_tested_sick_and_healthy() -> Result<Verdict> {
    let mut faults = Vec::new();
    for file in files()? {
        let rules = rules_of(&read(&file)?).with_context(|| check::name(&file))?;
        let tests: TestFile = serde_saphyr::from_str(&read(&tests_of(&file))?)
            .with_context(|| format!("parse the tests of {}", check::name(&file)))?;
        faults.extend(untested(&rules, &tests.tests));
    }
    none(faults)
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("rules::every_rule_asks_for_what_the_agent_has", every_rule_asks_for_what_the_agent_has),
    Check::new("rules::every_alert_is_tested_sick_and_healthy", every_alert_is_tested_sick_and_healthy),
    Check::new("rules::every_alert_on_an_ailment_says_what_to_treat", every_alert_on_an_ailment_says_what_to_treat),
    Check::new("rules::an_alert_that_does_not_say_what_to_treat_is_found", tests::an_alert_that_does_not_say_what_to_treat_is_found),
    Check::new("rules::each_fault_is_found", tests::each_fault_is_found),
    Check::new("rules::an_alert_without_a_pair_of_tests_is_found", tests::an_alert_without_a_pair_of_tests_is_found),
];

mod tests {
    use anyhow::{Result, ensure};
    use serde_json::Value;

    use super::{AlertTest, Test, rules_of, unlabelled, untested};
    use crate::agent::fake;
    use crate::check::{Verdict, found, none};

    const SOUND: &str = r#"
groups:
  - name: fake
    rules:
      - alert: RateHigh
        expr: sum by (instance) (rate(events_total[5m])) > 3
        labels: {severity: warning}
        annotations:
          summary: The rate of {{ $labels.instance }} is high.
          description: "{{ range query `topk(1, pressure{side=%q})` }}{{ end }}"
          action: Rest.
          runbook_url: https://github.com/nodemedic/nodemedic/blob/main/README.md
"#;

    pub(super) fn each_fault_is_found() -> Result<Verdict> {
        let faults = |text: &str| -> Result<Vec<String>> {
            Ok(rules_of(text)?
                .iter()
                .flat_map(|rule| rule.faults(&fake::metrics()))
                .collect())
        };
        ensure!(faults(SOUND)?.is_empty(), "{:?}", faults(SOUND)?);
        let cases = [
            ("events_total", "beat_total", "no metric beat_total"),
            ("by (instance)", "by (instanze)", "no label instanze"),
            ("$labels.instance", "$labels.side", "tells label side"),
            ("pressure{", "presure{", "no metric presure"),
            ("severity: warning", "severity: bad", "\"bad\" is none of"),
            ("action: Rest.", "", "no annotation action"),
            (
                "runbook_url: https://github.com/nodemedic/nodemedic/blob/main/README.md",
                "",
                "no annotation runbook_url",
            ),
            (
                "runbook_url: https://github.com/nodemedic/nodemedic/blob/main/README.md",
                "runbook_url: https://github.com/nodemedic/nodemedic/blob/main/READYOU.md",
                "READYOU.md",
            ),
        ];
        for (sound, spoilt, wanted) in cases {
            found(&faults(&SOUND.replace(sound, spoilt))?, wanted)?;
        }
        Ok(Verdict::Passed)
    }

    pub(super) fn an_alert_that_does_not_say_what_to_treat_is_found() -> Result<Verdict> {
        let labelled = SOUND
            .replace("severity: warning", "ailment: fake, kind: at_risk")
            .replace("README.md", "README.md#at-risk");
        none(unlabelled("fake", &rules_of(&labelled)?))?;
        found(&unlabelled("lung", &rules_of(&labelled)?), "label ailment")?;
        let other = labelled.replace("#at-risk", "#sick");
        found(&unlabelled("fake", &rules_of(&other)?), "label kind")?;
        Ok(Verdict::Passed)
    }

    pub(super) fn an_alert_without_a_pair_of_tests_is_found() -> Result<Verdict> {
        let rules = rules_of(SOUND)?;
        let test = |exp_alerts| Test {
            alert_rule_test: vec![AlertTest {
                alertname: "RateHigh".to_owned(),
                exp_alerts,
            }],
        };
        let (sick, healthy) = (test(vec![Value::Null]), test(Vec::new()));
        found(&untested(&rules, &[]), "no test in which it fires")?;
        found(
            &untested(&rules, std::slice::from_ref(&sick)),
            "no test in which it stays silent",
        )?;
        none(untested(&rules, &[sick, healthy]))
    }
}
