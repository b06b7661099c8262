//! What the agent changes on its node.

use crate::{
    model::{About, NodeReport, Sample, metrics},
    treatment::Refusal,
};

metrics! {
    pub(super) METRICS:
    /// 1 while the treatment is active, else 0.
    ACTIVE: Gauge = "nodemedic_treatment_active" ["treatment"];
    /// Transitions of treatments: applied, confirmed, undone (or ineffective, harmful), overridden
    /// by another program, rebooted, failed; dry-run where the agent set nothing. Trigger: manual,
    /// auto or alert.
    TOTAL: Counter = "nodemedic_treatment_transitions_total" ["treatment", "trigger", "outcome"];
    /// Values that another program changed while the treatment was active.
    DRIFT: Counter = "nodemedic_treatment_drift_total" ["treatment"];
    /// 1 while the agent can write its journal of treatments, else 0: it then begins none.
    JOURNAL: Gauge = "nodemedic_treatment_journal_writable" [];
    /// Requests for a treatment that the agent refused, by reason.
    REFUSALS: Counter = "nodemedic_treatment_refusals_total" ["reason"];
}

/// Of the treatments of these ailments.
pub(super) fn samples(report: &NodeReport, ailments: &[About]) -> Vec<Sample> {
    let counts = &report.treatment_counts;
    let mut samples = Vec::new();
    for treatment in ailments.iter().flat_map(|about| about.treatments) {
        let name = treatment.name;
        let mut ours = report.treatments.iter().filter(|it| it.treatment == name);
        let active = ours.any(|run| run.is_active());
        samples.push(Sample::number(&ACTIVE, [name], f64::from(u8::from(active))));
        let drifts = counts.drifts.get(name).copied().unwrap_or(0);
        samples.push(Sample::number(&DRIFT, [name], drifts as f64));
    }
    let writable = report.treatment_trouble.is_none();
    samples.push(Sample::number(
        &JOURNAL,
        [""; 0],
        f64::from(u8::from(writable)),
    ));
    for it in &counts.outcomes {
        let labels = [&it.treatment, &it.trigger, &it.outcome];
        samples.push(Sample::number(&TOTAL, labels, it.times as f64));
    }
    for reason in Refusal::REASONS {
        let refused = counts.refusals.get(reason).copied().unwrap_or(0);
        samples.push(Sample::number(&REFUSALS, [reason], refused as f64));
    }
    samples
}
