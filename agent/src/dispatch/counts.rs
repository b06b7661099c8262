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
    /// Requests to the dispatcher's webhook, by the status code of the answer.
    REQUESTS: Counter = "nodemedic_dispatch_requests_total" ["code"];
    /// Alerts that came to the dispatcher, by what it, or the agent, has decided.
    ALERTS: Counter = "nodemedic_dispatch_alerts_total" ["decision"];
    /// Alerts that max_alerts of the receiver has cut off, so that nobody can act on them.
    TRUNCATED: Counter = "nodemedic_dispatch_truncated_alerts_total" [];
    /// Agents when they were last asked: idle, treating, unreachable.
    AGENTS: Gauge = "nodemedic_dispatch_agents" ["state"];
    /// The limit: so many nodes may be under treatment at once, those that are unreachable among
    /// them.
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
