//! The house rules of a dashboard: those that make it importable anywhere, and legible.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::check::{Check, Verdict, found, none};
use crate::dashboard::{self, Dashboard, Panel, Place};

/// The columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// The data source is whatever the reader chooses.
const DATASOURCE: &str = "${datasource}";

fn faults(dashboard: &Dashboard) -> Vec<String> {
    let mut faults = Vec::new();
    if dashboard.id.is_some() {
        faults.push("its id would overwrite another dashboard's".to_owned());
    }
    if dashboard.uid.is_empty() {
        faults.push("without a uid it cannot be imported again over itself".to_owned());
    }
    faults.extend(repeated(
        dashboard.all_panels().map(|panel| panel.id.to_string()),
        "id",
    ));
    faults.extend(repeated(
        dashboard.all_panels().map(|panel| panel.title.clone()),
        "title",
    ));
    for panel in dashboard.all_panels() {
        let found = panel_faults(panel).into_iter();
        faults.extend(found.map(|fault| format!("panel {:?}: {fault}", panel.title)));
    }
    faults.extend(overlaps(&dashboard.panels));
    faults
        .iter()
        .map(|fault| format!("{}: {fault}", dashboard.file))
        .collect()
}

fn repeated(values: impl Iterator<Item = String>, what: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let again = values.filter(|value| !seen.insert(value.clone()));
    again
        .map(|value| format!("{what} {value:?} twice"))
        .collect()
}

fn panel_faults(panel: &Panel) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rule = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    let Place { x, w, .. } = panel.grid_pos;
    rule(!panel.title.is_empty(), "no title");
    rule(x + w <= COLUMNS, "it stands out of the grid");
    if panel.kind == "row" {
        return faults;
    }
    rule(!panel.description.is_empty(), "no description");
    rule(
        panel.field_config["defaults"]["unit"].is_string(),
        "no unit",
    );
    rule(is_chosen(&panel.datasource), "a data source of its own");
    rule(!panel.targets.is_empty(), "it asks for nothing");
    for target in &panel.targets {
        rule(
            is_chosen(&target.datasource),
            "a target with a data source of its own",
        );
        rule(
            has_grafanas_ranges(&target.expr),
            "a range that does not follow the scrape interval",
        );
    }
    faults.extend(repeated(
        panel.targets.iter().map(|target| target.ref_id.clone()),
        "refId",
    ));
    faults
}

fn is_chosen(datasource: &Value) -> bool {
    datasource["uid"] == DATASOURCE && datasource["type"] == "prometheus"
}

/// A fixed range is empty where targets are scraped more seldom, and hides peaks where they are
/// scraped more often.
fn has_grafanas_ranges(expression: &str) -> bool {
    dashboard::between(expression, "[", "]").all(|range| range.starts_with("$__"))
}

fn overlaps(panels: &[Panel]) -> Vec<String> {
    let mut faults = Vec::new();
    for (i, panel) in panels.iter().enumerate() {
        for other in &panels[i + 1..] {
            if meet(panel.grid_pos, other.grid_pos) {
                faults.push(format!("{:?} covers {:?}", panel.title, other.title));
            }
        }
    }
    faults
}

fn meet(a: Place, b: Place) -> bool {
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
}

fn every_dashboard_keeps_the_house_rules() -> Result<Verdict> {
    none(dashboard::all()?.iter().flat_map(faults).collect())
}

/// Makes a sound dashboard an unsound one.
type Spoil = fn(&mut Dashboard);

fn each_breach_is_found() -> Result<Verdict> {
    let sound = dashboard::tests::with("rate(events_total[$__rate_interval])", "")?;
    ensure!(faults(&sound).is_empty(), "{:?}", faults(&sound));
    let cases: [(Spoil, &str); 8] = [
        (|it| it.id = Some(1), "overwrite"),
        (|it| it.panels[0].description.clear(), "no description"),
        (|it| it.panels[0].field_config = Value::Null, "no unit"),
        (
            |it| it.panels[0].datasource = Value::Null,
            "a data source of its own",
        ),
        (|it| it.panels[0].targets.clear(), "asks for nothing"),
        (
            |it| it.panels[0].targets[0].expr = "rate(x[5m])".to_owned(),
            "scrape interval",
        ),
        (|it| it.panels[0].grid_pos.x = 20, "out of the grid"),
        (add_the_same_again, "covers"),
    ];
    for (spoil, wanted) in cases {
        let mut dashboard = dashboard::tests::with("rate(events_total[$__rate_interval])", "")?;
        spoil(&mut dashboard);
        found(&faults(&dashboard), wanted)?;
    }
    Ok(Verdict::Passed)
}

fn add_the_same_again(dashboard: &mut Dashboard) {
    if let Ok(other) = dashboard::tests::with("events_total", "") {
        dashboard.panels.extend(other.panels);
    }
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("layout::every_dashboard_keeps_the_house_rules", every_dashboard_keeps_the_house_rules),
    Check::new("layout::each_breach_is_found", each_breach_is_found),
];
