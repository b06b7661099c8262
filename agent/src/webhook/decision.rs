//! What was decided of an alert.

use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use std::collections::BTreeMap;

use super::Alert;

/// What was decided of an alert, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// A treatment was begun.
    Begun,
    /// It could not be written, and what was is put back.
    Failed,
    /// One would have been, if the configuration allowed it to alerts.
    #[serde(rename = "dry-run")]
    DryRun,
    /// This alert has begun one already, or another has begun the same.
    Duplicate,
    /// Something is against it.
    Refused,
    /// Something is against it that passes of itself.
    NotYet,
    /// It is resolved, and what it had begun is undone.
    Undone,
    /// It is resolved, and had begun nothing that is still active.
    NothingToUndo,
    /// It is resolved, and what it had begun stays: as configured, or since it is still needed.
    LeftAlone,
    /// It is of another node.
    OtherNode,
    /// It does not say of which node it is.
    NoNode,
    /// There were too many before it.
    TooMany,
    /// Of a dispatcher: it knows no agent of that node.
    UnknownNode,
    /// Of a dispatcher: the agent of that node does not answer.
    Unreachable,
    /// Of a dispatcher: the agent of that node does not take it.
    Rejected,
    /// Of a dispatcher: as many nodes as may be are under treatment.
    RateLimited,
}

impl Decision {
    /// All of them: those of a dispatcher, which passes on what agents have decided.
    pub const ALL: &'static [Self] = &[
        Self::Begun,
        Self::Failed,
        Self::DryRun,
        Self::Duplicate,
        Self::Refused,
        Self::NotYet,
        Self::Undone,
        Self::NothingToUndo,
        Self::LeftAlone,
        Self::OtherNode,
        Self::NoNode,
        Self::TooMany,
        Self::UnknownNode,
        Self::Unreachable,
        Self::Rejected,
        Self::RateLimited,
    ];

    /// Those of an agent.
    pub const OF_AN_AGENT: &'static [Self] = Self::ALL.split_at(12).0;

    /// Whether the alert is to be sent again, as the reason passes.
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::NotYet | Self::Unreachable | Self::RateLimited)
    }

    /// Whether a treatment has begun or ended, or should have.
    const fn is_of_a_run(self) -> bool {
        matches!(self, Self::Begun | Self::Failed | Self::Undone)
    }

    /// What labels, logs and answers call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Failed => "failed",
            Self::DryRun => "dry-run",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::NotYet => "not_yet",
            Self::Undone => "undone",
            Self::NothingToUndo => "nothing_to_undo",
            Self::LeftAlone => "left_alone",
            Self::OtherNode => "other_node",
            Self::NoNode => "no_node",
            Self::TooMany => "too_many",
            Self::UnknownNode => "unknown_node",
            Self::Unreachable => "unreachable",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate_limited",
        }
    }
}

/// What was decided of one alert, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertOutcome {
    /// Its name.
    pub alertname: String,
    /// Which one it is.
    pub fingerprint: String,
    /// Which one it is, too.
    pub starts_at: String,
    /// Of which node a dispatcher takes it to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What was decided.
    pub decision: Decision,
    /// The run that was begun, or undone, or that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// With what it is treated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treatment: Option<String>,
    /// Why.
    pub why: String,
    /// The ailment that the alert is of, for the log.
    #[serde(skip)]
    pub ailment: Option<String>,
}

impl AlertOutcome {
    /// Which alert it is on.
    pub fn id(&self) -> (&str, &str) {
        (&self.fingerprint, &self.starts_at)
    }

    /// The line of the log that tells one that comes with every payload of a cluster.
    fn whisper(&self) {
        let Self {
            alertname,
            fingerprint,
            starts_at,
            decision,
            why,
            ..
        } = self;
        let decision = decision.name();
        debug!(
            alertname,
            fingerprint, starts_at, "alert: {decision}: {why}"
        );
    }

    /// The line of the log that tells it.
    fn tell(&self, others: Option<usize>) {
        let Self {
            alertname,
            fingerprint,
            starts_at,
            node,
            decision,
            run,
            treatment,
            why,
            ailment,
        } = self;
        let decision = decision.name();
        let (node, treatment) = (node.as_deref(), treatment.as_deref());
        let ailment = ailment.as_deref();
        match self.decision {
            Decision::Failed
            | Decision::OtherNode
            | Decision::NoNode
            | Decision::TooMany
            | Decision::UnknownNode
            | Decision::Unreachable
            | Decision::Rejected
            | Decision::RateLimited => {
                warn!(
                    alertname,
                    fingerprint, starts_at, node, ailment, others, "alert: {decision}: {why}"
                );
            }
            Decision::Begun
            | Decision::DryRun
            | Decision::Duplicate
            | Decision::Refused
            | Decision::NotYet
            | Decision::Undone
            | Decision::NothingToUndo
            | Decision::LeftAlone => {
                info!(
                    alertname,
                    fingerprint,
                    starts_at,
                    node,
                    ailment,
                    treatment,
                    run,
                    others,
                    "alert: {decision}: {why}"
                );
            }
        }
    }

    /// A outcome on an alert, which is of no run.
    pub fn on(alert: &Alert, decision: Decision, why: impl Into<String>) -> Self {
        Self {
            alertname: alert.name().to_owned(),
            fingerprint: alert.fingerprint.clone(),
            starts_at: alert.starts_at.clone(),
            node: None,
            decision,
            run: None,
            treatment: None,
            why: why.into(),
            ailment: alert.ailment().map(str::to_owned),
        }
    }
}

/// Tells the log what was decided of a payload. What concerns a run has a line each. Of the rest, the
/// first of each decision has one, with the number of the others: a group may have thousands.
/// `is_news` is asked about alerts of other nodes, which come with every payload of a cluster.
pub fn tell_all(outcomes: &[AlertOutcome], mut is_news: impl FnMut(&AlertOutcome) -> bool) {
    let mut firsts = BTreeMap::<Decision, (&AlertOutcome, usize)>::new();
    for outcome in outcomes {
        if outcome.decision == Decision::OtherNode && !is_news(outcome) {
            outcome.whisper();
        } else if outcome.decision.is_of_a_run() {
            outcome.tell(None);
        } else {
            let first = firsts.entry(outcome.decision);
            first
                .and_modify(|(_, others)| *others += 1)
                .or_insert((outcome, 0));
        }
    }
    for (outcome, others) in firsts.into_values() {
        outcome.tell((others > 0).then_some(others));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_has_one_name() {
        for decision in Decision::ALL {
            let json = serde_json::to_value(decision).unwrap();
            assert_eq!(json, decision.name());
        }
    }
}
