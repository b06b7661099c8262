//! How well the names of pods are known.

use super::DirectoryReport;
use crate::metrics::{Kind, MetricDef, Sample};

const SOURCE_INFO: MetricDef = MetricDef {
    name: "nodemedic_names_source_info",
    kind: Kind::Gauge,
    help: "Always 1: who tells the names of pods and containers, cri, kubelet or none.",
    labels: &["source"],
};
const KNOWN: MetricDef = MetricDef {
    name: "nodemedic_names_known",
    kind: Kind::Gauge,
    help: "Pods and containers whose names are known; cut: those for which there was no room \
           (node.max_pods).",
    labels: &["what"],
};
const AGE: MetricDef = MetricDef {
    name: "nodemedic_names_age_seconds",
    kind: Kind::Gauge,
    help: "Time since the names were told. Absent before the first time.",
    labels: &[],
};
const ANSWER_SECONDS: MetricDef = MetricDef {
    name: "nodemedic_names_answer_seconds",
    kind: Kind::Gauge,
    help: "Time that the last answer took.",
    labels: &[],
};
const QUESTIONS: MetricDef = MetricDef {
    name: "nodemedic_names_questions_total",
    kind: Kind::Counter,
    help: "Questions for the names of all pods, by whether they were answered.",
    labels: &["outcome"],
};

/// While names are asked for.
pub const METRICS: &[MetricDef] = &[SOURCE_INFO, KNOWN, AGE, ANSWER_SECONDS, QUESTIONS];

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
    samples.extend(report.age_seconds.map(|age| Sample::plain(&AGE, age)));
    samples.push(Sample::plain(&ANSWER_SECONDS, report.answer_seconds));
    let questions = [("answered", report.answers), ("failed", report.errors)];
    samples.extend(
        questions.map(|(outcome, count)| Sample::number(&QUESTIONS, [outcome], count as f64)),
    );
    samples
}
