//! What goes to which agent.

use std::collections::HashMap;

use super::{
    AgentAddress, AgentPoll,
    agent::{Agent, AgentState, listed},
    poll::Found,
};
use crate::webhook::{Alert, AlertOutcome, Decision, MOST_ALERTS, NodeLabel, Status, node};

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
        !self.treats && self.fires()
    }

    /// Whether it asks for anything to be begun.
    pub(super) fn fires(&self) -> bool {
        let firing = |alert: &Alert| alert.status == Status::Firing;
        self.alerts.iter().any(firing)
    }

    /// The alerts that begin nothing, and those that are left.
    pub(super) fn split(mut self) -> (Option<Self>, Vec<Alert>) {
        let firing = |alert: &Alert| alert.status == Status::Firing;
        let (left, harmless) = self.alerts.into_iter().partition(firing);
        self.alerts = harmless;
        let batch = (!self.alerts.is_empty()).then_some(self);
        (batch, left)
    }

    /// As many alerts as the agent decides on, those that are resolved first as there, and the outcomes
    /// on the others.
    fn cut(&mut self) -> Vec<AlertOutcome> {
        self.alerts.sort_by_key(|alert| alert.status);
        let rest = self.alerts.split_off(self.alerts.len().min(MOST_ALERTS));
        let why = format!("of one payload, {MOST_ALERTS} alerts of a node are decided on");
        let rest = rest.iter();
        rest.map(|alert| on(alert, &self.node, Decision::TooMany, &why))
            .collect()
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
    alerts: Vec<Alert>,
    labels: &[String],
    poll: &AgentPoll,
) -> (Vec<Batch>, Vec<AlertOutcome>) {
    let (mut batches, mut outcomes) = (Vec::<Batch>::new(), Vec::new());
    let mut places = HashMap::new();
    for alert in alerts {
        match address(&alert, labels, poll) {
            Ok((address, node, treats)) => {
                let place = *places.entry(node).or_insert_with(|| {
                    batches.push(Batch {
                        node: node.to_owned(),
                        address: address.clone(),
                        alerts: Vec::new(),
                        treats,
                    });
                    batches.len() - 1
                });
                batches[place].alerts.push(alert);
            }
            Err(outcome) => outcomes.push(*outcome),
        }
    }
    for batch in &mut batches {
        outcomes.extend(batch.cut());
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
            if let Some(doubt) = &poll.doubt {
                return rule(Decision::Unreachable, &format!("{why}; {doubt}"));
            }
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
        AgentState::Reachable { node, .. } => {
            Ok((&agent.address, node, agent.counts_as_treating()))
        }
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
        let (batches, outcomes) = sort(alerts.to_vec(), &labels, &AgentPoll::of(agents));
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
        let (batches, outcomes) = sort(alerts.into(), &labels, &AgentPoll::of(agents));
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

    /// The agents of a name that nobody could look up may be those.
    #[test]
    fn while_the_agents_are_not_known_nothing_is_of_an_unknown_node() {
        let alerts = ["a", "b", ""].map(|node| alert(Status::Resolved, node));
        let labels = ["node".to_owned()];
        let mut poll = AgentPoll::of(vec![agent(None, there("a", false))]);
        poll.doubt = Some("look up agents: no such host".to_owned());
        let (batches, outcomes) = sort(alerts.into(), &labels, &poll);
        assert_eq!(batches.len(), 1);
        let decisions: Vec<_> = outcomes.iter().map(|it| it.decision).collect();
        assert_eq!(decisions, [Decision::Unreachable, Decision::NoNode]);
        assert!(outcomes[0].why.contains("no such host"), "{outcomes:?}");
    }

    #[test]
    fn of_60_000_alerts_each_has_an_outcome() {
        let agents = (0..1_000).map(|i| agent(None, there(&format!("node-{i}"), false)));
        let alerts: Vec<_> = (0..60_000)
            .map(|i| alert(Status::Firing, &format!("node-{}", i / 2)))
            .collect();
        let (batches, outcomes) = sorted(&alerts, agents.collect());
        assert_eq!(batches.len(), 1_000);
        assert!(batches.iter().all(|batch| batch.alerts.len() == 2));
        assert_eq!(outcomes.len(), 58_000);
    }

    #[test]
    fn an_agent_gets_as_many_alerts_as_it_decides_on() {
        let mut alerts = vec![alert(Status::Firing, "a"); 60_000];
        alerts.push(alert(Status::Resolved, "a"));
        let (batches, outcomes) = sorted(&alerts, vec![agent(None, there("a", false))]);
        assert_eq!(batches[0].alerts.len(), MOST_ALERTS);
        assert_eq!(batches[0].alerts[0].status, Status::Resolved);
        assert_eq!(outcomes, vec![Decision::TooMany; 59_901]);
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
