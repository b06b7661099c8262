//! What goes to which agent.

use super::{
    Census, Place,
    census::{Agent, Standing},
};
use crate::webhook::{Alert, Decision, Ruling, Status, node};

/// The alerts of one agent.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) node: String,
    pub(super) place: Place,
    pub(super) alerts: Vec<Alert>,
    /// Whether something is active there already: one more is no more nodes.
    pub(super) treats: bool,
}

impl Letter {
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
        let letter = (!self.alerts.is_empty()).then_some(self);
        (letter, left)
    }

    /// One ruling on each of its alerts.
    pub(super) fn all(&self, decision: Decision, why: &str) -> Vec<Ruling> {
        let alerts = self.alerts.iter();
        alerts
            .map(|alert| on(alert, &self.node, decision, why))
            .collect()
    }
}

/// A ruling on an alert of a node.
pub(super) fn on(alert: &Alert, node: &str, decision: Decision, why: &str) -> Ruling {
    Ruling {
        node: Some(node.to_owned()),
        ..Ruling::on(alert, decision, why)
    }
}

/// Sorts alerts by their nodes, and rules on those that go nowhere.
pub(super) fn sort(
    alerts: &[Alert],
    labels: &[String],
    census: &Census,
) -> (Vec<Letter>, Vec<Ruling>) {
    let (mut letters, mut rulings) = (Vec::<Letter>::new(), Vec::new());
    for alert in alerts {
        match address(alert, labels, census) {
            Ok((place, node, treats)) => match letters.iter_mut().find(|it| it.node == node) {
                Some(letter) => letter.alerts.push(alert.clone()),
                None => letters.push(Letter {
                    node: node.to_owned(),
                    place: place.clone(),
                    alerts: vec![alert.clone()],
                    treats,
                }),
            },
            Err(ruling) => rulings.push(*ruling),
        }
    }
    (letters, rulings)
}

/// Where an alert goes: the agent, its node, and whether it treats.
fn address<'c>(
    alert: &Alert,
    labels: &[String],
    census: &'c Census,
) -> Result<(&'c Place, &'c str, bool), Box<Ruling>> {
    let Some(label) = node(labels, &alert.labels) else {
        let looked_at = labels.join(", ");
        let why = format!("none of its labels names a node; looked at are {looked_at}");
        return Err(Box::new(Ruling::on(alert, Decision::NoNode, why)));
    };
    let rule = |decision, why: &str| Err(Box::new(on(alert, label, decision, why)));
    match (census.find(label), census.nameless()) {
        (Some(agent), _) => match &agent.state {
            Standing::There { node, treats } => Ok((&agent.place, node, *treats)),
            Standing::Unreachable { why } => rule(Decision::Unreachable, why),
        },
        (None, Some(Agent { place, .. })) => rule(
            Decision::Unreachable,
            &format!("no agent that answers is of it; {} does not", place.name()),
        ),
        (None, None) => rule(Decision::UnknownNode, "no agent is of it"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::census::tests::{agent, gone, there},
        *,
    };

    fn alert(status: Status, node: &str) -> Alert {
        let labels = [("node".to_owned(), node.to_owned())].into();
        Alert {
            status,
            labels,
            starts_at: "now".to_owned(),
            fingerprint: "f".to_owned(),
        }
    }

    fn sorted(alerts: &[Alert], agents: Vec<Agent>) -> (Vec<Letter>, Vec<Decision>) {
        let labels = ["node".to_owned()];
        let (letters, rulings) = sort(alerts, &labels, &Census::of(agents));
        (
            letters,
            rulings.iter().map(|ruling| ruling.decision).collect(),
        )
    }

    #[test]
    fn each_agent_gets_the_alerts_of_its_node_in_one_letter() {
        let agents = vec![
            agent(None, there("a", false)),
            agent(None, there("b", true)),
        ];
        let alerts = ["a", "b:1", "a:2"].map(|node| alert(Status::Firing, node));
        let (letters, rulings) = sorted(&alerts, agents);
        let sizes: Vec<_> = letters
            .iter()
            .map(|it| (it.node.as_str(), it.alerts.len()))
            .collect();
        assert_eq!(sizes, [("a", 2), ("b", 1)]);
        assert_eq!(rulings, []);
        assert!(letters[0].may_begin());
        assert!(!letters[1].may_begin(), "it treats already");
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
    fn what_is_resolved_begins_nothing() {
        let alerts = [alert(Status::Resolved, "a"), alert(Status::Firing, "a")];
        let agents = || vec![agent(None, there("a", false))];
        let (letters, _) = sorted(&alerts[..1], agents());
        assert!(!letters[0].may_begin());
        let (mut letters, _) = sorted(&alerts, agents());
        let (harmless, left) = letters.remove(0).split();
        assert_eq!(harmless.unwrap().alerts, alerts[..1]);
        assert_eq!(left, alerts[1..]);
    }
}
