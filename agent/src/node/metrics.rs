//! How well the names of pods are known.

use crate::model::{DirectoryReport, Sample, metrics};

metrics! {
    /// While names are asked for.
    pub METRICS:
    /// Always 1; the label source is where the names of pods and containers come from: cri, kubelet
    /// or none.
    SOURCE_INFO: Gauge = "nodemedic_pod_lookup_source_info" ["source"];
    /// Pods and containers with known names; cut: those beyond node.max_pods.
    KNOWN: Gauge = "nodemedic_pod_lookup_objects" ["object"];
    /// Time of the last successful request for names, in seconds since the epoch. Absent before the
    /// first.
    LAST_SUCCESS: Gauge = "nodemedic_pod_lookup_last_success_timestamp_seconds" [];
    /// Duration of the last successful request for names.
    ANSWER_SECONDS: Gauge = "nodemedic_pod_lookup_duration_seconds" [];
    /// Requests for the names of all pods, by result.
    QUESTIONS: Counter = "nodemedic_pod_lookup_requests_total" ["outcome"];
}

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
