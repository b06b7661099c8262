//! What the webhook counts.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Decision;
use crate::metrics::{Kind, MetricDef, Sample};

const REQUESTS: MetricDef = MetricDef {
    name: "nodemedic_webhook_requests_total",
    kind: Kind::Counter,
    help: "Requests to the webhook, by the status code of the answer.",
    labels: &["code"],
};
const ALERTS: MetricDef = MetricDef {
    name: "nodemedic_webhook_alerts_total",
    kind: Kind::Counter,
    help: "Alerts that came to the webhook, by what was decided.",
    labels: &["decision"],
};
const TRUNCATED: MetricDef = MetricDef {
    name: "nodemedic_webhook_truncated_alerts_total",
    kind: Kind::Counter,
    help: "Alerts that max_alerts of the receiver has cut off, so that nobody can act on them.",
    labels: &[],
};

/// The definitions.
pub const METRICS: &[MetricDef] = &[REQUESTS, ALERTS, TRUNCATED];

/// The status codes that there can be.
pub(crate) const CODES: [u16; 9] = [200, 400, 401, 404, 405, 408, 413, 500, 503];

/// Counts since the agent began.
#[derive(Debug, Default)]
pub struct Counts(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    requests: BTreeMap<u16, u64>,
    alerts: BTreeMap<Decision, u64>,
    truncated: u64,
}

impl Counts {
    pub(super) fn request(&self, code: u16) {
        *self.kept().requests.entry(code).or_default() += 1;
    }

    pub(super) fn alert(&self, decision: Decision) {
        *self.kept().alerts.entry(decision).or_default() += 1;
    }

    pub(super) fn truncated(&self, alerts: u64) {
        let mut kept = self.kept();
        kept.truncated = kept.truncated.saturating_add(alerts);
    }

    /// What a scrape shows.
    pub fn samples(&self) -> Vec<Sample> {
        let kept = self.kept();
        let mut samples = vec![Sample::plain(&TRUNCATED, kept.truncated as f64)];
        for code in CODES {
            let count = kept.requests.get(&code).copied().unwrap_or(0);
            samples.push(Sample::number(&REQUESTS, [code.to_string()], count as f64));
        }
        for decision in Decision::ALL {
            let count = kept.alerts.get(&decision).copied().unwrap_or(0);
            samples.push(Sample::number(&ALERTS, [decision.name()], count as f64));
        }
        samples
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
