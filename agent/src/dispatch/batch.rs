//! What goes to which agent.

use super::{
    AgentAddress, AgentPoll,
    poll::{Agent, AgentState, Found, listed},
};
use crate::webhook::{Alert, AlertOutcome, Decision, NodeLabel, Status, node};

/// The alerts of one agent.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) node: String,
    pub(super) address: AgentAddress,
    pub(super) alerts: Vec<Alert>,
    /// Whether something is active there already: one more is no more nodes.
    pub(super) treats: bool,
}

impl Batch {
    /// Whether its node may be one more that is under treatment.
    pub(super) fn may_begin(&self) -> bool {
        !self.treats
            && self
                .alerts
                .iter()
                .any(|alert| alert.status == Status::Firing)
    }

    /// The alerts that begin nothing, and those that are left.
    pub(super) fn split(mut self) -> (Option<Self>, Vec<Alert>) {
        let firing = |alert: &Alert| alert.status == Status::Firing;
        let (left, harmless) = self.alerts.into_iter().partition(firing);
        self.alerts = harmless;
        let batch = (!self.alerts.is_empty()).then_some(self);
        (batch, left)
    }

    /// One outcome on each of its alerts.
    pub(super) fn all(&self, decision: Decision, why: &str) -> Vec<AlertOutcome> {
        let alerts = self.alerts.iter();
        alerts
            .map(|alert| on(alert, &self.node, decision, why))
            .collect()
    }
}

/// A outcome on an alert of a node.
pub(super) fn on(alert: &Alert, node: &str, decision: Decision, why: &str) -> AlertOutcome {
    AlertOutcome {
        node: Some(node.to_owned()),
        ..AlertOutcome::on(alert, decision, why)
    }
}

/// Sorts alerts by their nodes, and rules on those that go nowhere.
pub(super) fn sort(
    alerts: &[Alert],
    labels: &[String],
    poll: &AgentPoll,
) -> (Vec<Batch>, Vec<AlertOutcome>) {
    let (mut batches, mut outcomes) = (Vec::<Batch>::new(), Vec::new());
    for alert in alerts {
        match address(alert, labels, poll) {
            Ok((address, node, treats)) => match batches.iter_mut().find(|it| it.node == node) {
                Some(batch) => batch.alerts.push(alert.clone()),
                None => batches.push(Batch {
                    node: node.to_owned(),
                    address: address.clone(),
                    alerts: vec![alert.clone()],
                    treats,
                }),
            },
            Err(outcome) => outcomes.push(*outcome),
        }
    }
    (batches, outcomes)
}

/// Where an alert goes: the agent, its node, and whether it treats.
fn address<'c>(
    alert: &Alert,
    labels: &[String],
    poll: &'c AgentPoll,
) -> Result<(&'c AgentAddress, &'c str, bool), Box<AlertOutcome>> {
    let Some(NodeLabel { label, value }) = node(labels, &alert.labels) else {
        let looked_at = labels.join(", ");
        let why = format!("none of its labels names a node; looked at are {looked_at}");
        return Err(Box::new(AlertOutcome::on(alert, Decision::NoNode, why)));
    };
    let rule = |decision, why: &str| Err(Box::new(on(alert, value, decision, why)));
    let agent = match poll.find(value) {
        Found::One(agent) => agent,
        Found::Many(agents) => {
            let why = format!(
                "its label {label} is {value:?}, and more than one agent has this name: {}",
                listed(&agents)
            );
            return rule(Decision::UnknownNode, &why);
        }
        Found::None => {
            let why = format!(
                "its label {label} is {value:?}, and no agent that answers has this name or \
                 address"
            );
            return match poll.nameless() {
                Some(Agent { address, .. }) => rule(
                    Decision::Unreachable,
                    &format!("{why}; {} does not", address.name()),
                ),
                None => rule(
                    Decision::UnknownNode,
                    &format!("{why}; the agents are {}", poll.names()),
                ),
            };
        }
    };
    match &agent.state {
        AgentState::Reachable { node, treats, .. } => Ok((&agent.address, node, *treats)),
        AgentState::Unreachable { why } => rule(Decision::Unreachable, why),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::poll::tests::{agent, gone, there},
        *,
    };

    fn alert(status: Status, node: &str) -> Alert {
        let labels = [("node".to_owned(), node.to_owned())].into();
        Alert {
            status,
            labels,
            starts_at: "now".to_owned(),
            ends_at: None,
            fingerprint: "f".to_owned(),
        }
    }

    fn sorted(alerts: &[Alert], agents: Vec<Agent>) -> (Vec<Batch>, Vec<Decision>) {
        let labels = ["node".to_owned()];
        let (batches, outcomes) = sort(alerts, &labels, &AgentPoll::of(agents));
        (
            batches,
            outcomes.iter().map(|outcome| outcome.decision).collect(),
        )
    }

    #[test]
    fn each_agent_gets_the_alerts_of_its_node_in_one_batch() {
        let agents = vec![
            agent(None, there("a", false)),
            agent(None, there("b", true)),
        ];
        let alerts = ["a", "b:1", "a:2"].map(|node| alert(Status::Firing, node));
        let (batches, outcomes) = sorted(&alerts, agents);
        let sizes: Vec<_> = batches
            .iter()
            .map(|it| (it.node.as_str(), it.alerts.len()))
            .collect();
        assert_eq!(sizes, [("a", 2), ("b", 1)]);
        assert_eq!(outcomes, []);
        assert!(batches[0].may_begin());
        assert!(!batches[1].may_begin(), "it treats already");
    }

    #[test]
    fn what_goes_nowhere_is_said() {
        let known = || {
            vec![
                agent(Some("a"), there("a", false)),
                agent(Some("b"), gone()),
            ]
        };
        let alerts = ["", "b", "c"].map(|node| alert(Status::Firing, node));
        let wanted = [
            Decision::NoNode,
            Decision::Unreachable,
            Decision::UnknownNode,
        ];
        assert_eq!(sorted(&alerts, known()).1, wanted);
        // The one that does not answer may be the one.
        let mut with_a_nameless = known();
        with_a_nameless.push(agent(None, gone()));
        let wanted = [
            Decision::NoNode,
            Decision::Unreachable,
            Decision::Unreachable,
        ];
        assert_eq!(sorted(&alerts, with_a_nameless).1, wanted);
    }

    #[test]
    fn an_alert_that_fits_nobody_names_the_label() {
        let agents = vec![
            agent(None, there("a.x.example", false)),
            agent(None, there("a.y.example", false)),
        ];
        let alerts = ["b", "a"].map(|node| alert(Status::Firing, node));
        let labels = ["node".to_owned()];
        let (batches, outcomes) = sort(&alerts, &labels, &AgentPoll::of(agents));
        assert!(batches.is_empty());
        for (outcome, label) in outcomes
            .iter()
            .zip(["label node is \"b\"", "label node is \"a\""])
        {
            assert_eq!(outcome.decision, Decision::UnknownNode);
            assert!(outcome.why.contains(label), "{}", outcome.why);
            assert!(
                outcome.why.contains("a.x.example, a.y.example"),
                "{}",
                outcome.why
            );
        }
    }

    #[test]
    fn what_is_resolved_begins_nothing() {
        let alerts = [alert(Status::Resolved, "a"), alert(Status::Firing, "a")];
        let agents = || vec![agent(None, there("a", false))];
        let (batches, _) = sorted(&alerts[..1], agents());
        assert!(!batches[0].may_begin());
        let (mut batches, _) = sorted(&alerts, agents());
        let (harmless, left) = batches.remove(0).split();
        assert_eq!(harmless.unwrap().alerts, alerts[..1]);
        assert_eq!(left, alerts[1..]);
    }
}
