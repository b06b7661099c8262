//! What the webhook counts.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Decision;

use crate::model::{MetricDef, Sample, metrics};

metrics! {
    /// The definitions.
    pub METRICS:
    /// Requests to the webhook, by status code of the answer.
    REQUESTS: Counter = "nodemedic_webhook_requests_total" ["code"];
    /// Alerts that the webhook received, by decision.
    ALERTS: Counter = "nodemedic_webhook_alerts_total" ["decision"];
    /// Alerts that Alertmanager did not send because of max_alerts of the receiver. The agent
    /// cannot act on them.
    TRUNCATED: Counter = "nodemedic_webhook_truncated_alerts_total" [];
}

/// What there is to count, wherever alerts come in.
#[derive(Debug)]
pub struct Counted {
    /// Requests, by code.
    pub requests: &'static MetricDef,
    /// Alerts, by decision.
    pub alerts: &'static MetricDef,
    /// Alerts that were cut off.
    pub truncated: &'static MetricDef,
    /// The decisions that there are.
    pub decisions: &'static [Decision],
}

/// What the webhook counts.
pub static OF_WEBHOOK: Counted = Counted {
    requests: &REQUESTS,
    alerts: &ALERTS,
    truncated: &TRUNCATED,
    decisions: Decision::OF_AN_AGENT,
};

/// The status codes that there can be.
const CODES: [u16; 11] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 500, 503];

/// Counts since the process began.
#[derive(Debug)]
pub struct Counts {
    of: &'static Counted,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    requests: BTreeMap<u16, u64>,
    alerts: BTreeMap<Decision, u64>,
    truncated: u64,
}

impl Counts {
    /// All of them 0.
    pub fn new(of: &'static Counted) -> Self {
        Self {
            of,
            kept: Mutex::default(),
        }
    }

    pub(crate) fn request(&self, code: u16, truncated: u64) {
        let mut kept = self.kept();
        *kept.requests.entry(code).or_default() += 1;
        kept.truncated = kept.truncated.saturating_add(truncated);
    }

    pub(crate) fn alert(&self, decision: Decision) {
        *self.kept().alerts.entry(decision).or_default() += 1;
    }

    /// What a scrape shows.
    pub fn samples(&self) -> Vec<Sample> {
        let (kept, of) = (self.kept(), self.of);
        let mut samples = vec![Sample::plain(of.truncated, kept.truncated as f64)];
        for code in CODES {
            let count = kept.requests.get(&code).copied().unwrap_or(0);
            samples.push(Sample::number(
                of.requests,
                [code.to_string()],
                count as f64,
            ));
        }
        for decision in of.decisions {
            let count = kept.alerts.get(decision).copied().unwrap_or(0);
            samples.push(Sample::number(of.alerts, [decision.name()], count as f64));
        }
        samples
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
