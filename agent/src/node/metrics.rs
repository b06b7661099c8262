//! How well the names of pods are known.

use crate::model::{DirectoryReport, MetricDef, MetricKind, Sample};

const SOURCE_INFO: MetricDef = MetricDef {
    name: "nodemedic_pod_lookup_source_info",
    kind: MetricKind::Gauge,
    help: "Always 1: the source of the names of pods and containers: cri, kubelet or none.",
    labels: &["source"],
};
const KNOWN: MetricDef = MetricDef {
    name: "nodemedic_pod_lookup_objects",
    kind: MetricKind::Gauge,
    help: "Pods and containers whose names are known; cut: those for which there was no room \
           (node.max_pods).",
    labels: &["object"],
};
const LAST_SUCCESS: MetricDef = MetricDef {
    name: "nodemedic_pod_lookup_last_success_timestamp_seconds",
    kind: MetricKind::Gauge,
    help: "When the names were last read, in seconds since the epoch. Absent before the first time.",
    labels: &[],
};
const ANSWER_SECONDS: MetricDef = MetricDef {
    name: "nodemedic_pod_lookup_duration_seconds",
    kind: MetricKind::Gauge,
    help: "Duration of the last answered request.",
    labels: &[],
};
const QUESTIONS: MetricDef = MetricDef {
    name: "nodemedic_pod_lookup_requests_total",
    kind: MetricKind::Counter,
    help: "Requests for the names of all pods, by whether they were answered.",
    labels: &["outcome"],
};

/// While names are asked for.
pub const METRICS: &[MetricDef] = &[SOURCE_INFO, KNOWN, LAST_SUCCESS, ANSWER_SECONDS, QUESTIONS];

/// Nothing where nobody is asked.
pub fn samples(report: Option<&DirectoryReport>) -> Vec<Sample> {
    let Some(report) = report else {
        return Vec::new();
    };
    let mut samples = Vec::new();
    if !report.source.is_empty() {
        samples.push(Sample::number(&SOURCE_INFO, [&report.source], 1.0));
    }
    let known = [
        ("pods", report.pods),
        ("containers", report.containers),
        ("cut", report.cut),
    ];
    samples.extend(known.map(|(what, count)| Sample::number(&KNOWN, [what], count as f64)));
    samples.extend(
        report
            .answered_unix_seconds
            .map(|at| Sample::plain(&LAST_SUCCESS, at)),
    );
    samples.push(Sample::plain(&ANSWER_SECONDS, report.answer_seconds));
    let questions = [("answered", report.answers), ("failed", report.errors)];
    samples.extend(
        questions.map(|(outcome, count)| Sample::number(&QUESTIONS, [outcome], count as f64)),
    );
    samples
}
