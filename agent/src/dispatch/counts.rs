//! What the dispatcher counts.

use std::sync::{Mutex, PoisonError};

use super::{AgentPoll, limit::ConcurrencyLimit};
use crate::{
    model::{Sample, metrics},
    webhook::{Counted, Decision},
};

metrics! {
    /// The definitions.
    pub METRICS:
    /// Requests to the dispatcher's webhook, by status code of the answer.
    REQUESTS: Counter = "nodemedic_dispatch_requests_total" ["code"];
    /// Alerts that the dispatcher received, by decision of the dispatcher or the agent.
    ALERTS: Counter = "nodemedic_dispatch_alerts_total" ["decision"];
    /// Alerts that Alertmanager did not send because of max_alerts of the receiver. The dispatcher
    /// cannot route them.
    TRUNCATED: Counter = "nodemedic_dispatch_truncated_alerts_total" [];
    /// Agents at the last poll: idle, treating, unreachable.
    AGENTS: Gauge = "nodemedic_dispatch_agents" ["state"];
    /// Nodes that may be under treatment at the same time. Unreachable nodes count, and so do those
    /// that have not answered to an alert or take no claim of this dispatcher.
    LIMIT: Gauge = "nodemedic_dispatch_treating_limit" [];
}

/// Of what comes in.
pub(super) static OF_DISPATCH: Counted = Counted {
    requests: &REQUESTS,
    alerts: &ALERTS,
    truncated: &TRUNCATED,
    decisions: Decision::ALL,
};

/// How the agents last were.
#[derive(Debug, Default)]
pub struct NodeGauges(Mutex<[usize; 4]>);

impl NodeGauges {
    pub(super) fn set(&self, poll: &AgentPoll, limit: ConcurrencyLimit) {
        let (treating, unreachable) = (poll.treating(), poll.unreachable());
        let idle = poll.known() - treating - unreachable;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = [idle, treating, unreachable, limit.most];
    }

    /// What a scrape shows.
    pub fn samples(&self) -> Vec<Sample> {
        let kept = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [idle, treating, unreachable, limit] = kept.map(|count| count as f64);
        vec![
            Sample::number(&AGENTS, ["idle"], idle),
            Sample::number(&AGENTS, ["treating"], treating),
            Sample::number(&AGENTS, ["unreachable"], unreachable),
            Sample::plain(&LIMIT, limit),
        ]
    }
}
