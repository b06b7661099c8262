//! Says in the log what has changed from one tick to the next, and nothing twice.

use tracing::{error, info, warn};

use crate::model::{AilmentReport, Coverage, Finding, Missing, Severity, missing_by_probe};

/// Logs how a report differs from the one before.
pub(super) fn log(before: Option<&AilmentReport>, now: &AilmentReport) {
    let same_probes = before.is_some_and(|before| before.probes == now.probes);
    if before.is_none_or(|before| before.coverage != now.coverage) || !same_probes {
        coverage(now);
    }
    let findings_before = before.map_or(&[][..], |before| &before.findings);
    for finding in added(findings_before, &now.findings) {
        appeared(&now.name, finding);
    }
    // Without a reading nobody knows whether a finding is over.
    if !now.reading.is_null() {
        for finding in added(&now.findings, findings_before) {
            info!(ailment = now.name, finding = finding.kind, "over");
        }
    }
}

/// Those of `now` whose kind is not among `before`.
fn added<'a>(before: &'a [Finding], now: &'a [Finding]) -> impl Iterator<Item = &'a Finding> {
    now.iter()
        .filter(|finding| !before.iter().any(|other| other.kind == finding.kind))
}

fn appeared(ailment: &str, finding: &Finding) {
    let Finding { kind, summary, .. } = finding;
    match finding.severity {
        Severity::Critical => error!(ailment, finding = kind, "{summary}"),
        Severity::Warning => warn!(ailment, finding = kind, "{summary}"),
    }
}

fn coverage(report: &AilmentReport) {
    let ailment = &report.name;
    match &report.coverage {
        Coverage::Starting => info!(ailment, "attaching"),
        Coverage::Full => info!(ailment, probes = probes(report), "measured in full"),
        Coverage::Partial => warn!(ailment, probes = probes(report), "measured in part"),
        Coverage::Waiting { module } => {
            info!(
                ailment,
                module, "waiting: the module is not loaded, or nothing uses it"
            );
        }
        Coverage::Unsupported { why } => warn!(ailment, "not measured: {why}"),
        Coverage::Failed { why } => error!(ailment, "not measured: {why}"),
        Coverage::Off => info!(ailment, "switched off in the configuration"),
    }
    for (probes, missing) in missing_by_probe(&report.probes) {
        for Missing { what, why, remedy } in missing {
            warn!(
                ailment,
                probes = probes.join(", "),
                missing = what,
                remedy,
                "{why}"
            );
        }
    }
}

/// Each probe with its hook, as `creations:fexit`.
fn probes(report: &AilmentReport) -> String {
    let shown = report
        .probes
        .iter()
        .map(|probe| format!("{}:{}", probe.name, probe.hook.as_deref().unwrap_or("none")));
    shown.collect::<Vec<_>>().join(" ")
}
