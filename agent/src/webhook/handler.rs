//! Decides on alerts with the engine of this node.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::spawn_blocking};

use super::{
    Alert, AlertOutcome, AlertTarget, Claimed, Claims, Counts, Decision, Names, NodeLabel, Payload,
    Receipt, Receiver, Status, tell_all,
};
use crate::{
    identity::Identity,
    model::{Reports, Run},
    treatment::{Ask, AskOutcome, Intent, NotNow, Once, Resolved, TreatmentService},
};

/// Alerts of this node in one payload that are decided on. It has some ten rules.
pub const MOST_ALERTS: usize = 100;

/// A receiver may send the alerts of a whole cluster to each agent: that one is of another node
/// is warned about once in this time for each node, and no more often.
const WARNED_EVERY: Duration = Duration::from_secs(3_600);

/// Other nodes that are told apart.
const MOST_NODES: usize = 1_000;

/// Decides on alerts of this node, one payload at a time: the engine blocks, and the
/// threads for that are few.
#[derive(Debug)]
pub struct AlertHandler {
    decider: Arc<Mutex<Decider>>,
    claims: Claims,
    counts: Arc<Counts>,
}

/// What it takes to decide.
#[derive(Debug)]
struct Decider {
    service: Arc<TreatmentService>,
    reports: Reports,
    names: Names,
    identity: Identity,
    undo_resolved: bool,
    counts: Arc<Counts>,
    /// When it was last warned about an alert of a node.
    warned: std::sync::Mutex<BTreeMap<String, Instant>>,
}

impl AlertHandler {
    /// A handler at this service.
    pub fn new(
        service: Arc<TreatmentService>,
        reports: Reports,
        names: Names,
        identity: Identity,
        undo_resolved: bool,
        counts: Arc<Counts>,
    ) -> Self {
        let decider = Decider {
            service,
            reports,
            names,
            identity,
            undo_resolved,
            counts: Arc::clone(&counts),
            warned: std::sync::Mutex::default(),
        };
        Self {
            decider: Arc::new(Mutex::new(decider)),
            claims: Claims::new(),
            counts,
        }
    }

    /// Which dispatcher may have something begun.
    pub fn claimed(&self) -> Claimed {
        self.claims.claimed()
    }
}

impl Receiver for AlertHandler {
    type AlertOutcome = AlertOutcome;

    async fn receive(&self, payload: Payload, from: Option<u64>) -> Receipt<AlertOutcome> {
        let deciding = self.claims.begin(from, !payload.alerts.is_empty());
        let decider = Arc::clone(&self.decider).lock_owned().await;
        let decide = move || {
            let receipt = decider.decide(payload.alerts, deciding.superseded_by);
            // What was begun is in the report by now.
            drop(deciding);
            receipt
        };
        Receipt::of_task(spawn_blocking(decide).await)
    }

    fn count(&self, code: u16, truncated: u64) {
        self.counts.request(code, truncated);
    }
}

impl Decider {
    /// Those that are resolved go first, as they make room for others.
    fn decide(&self, mut alerts: Vec<Alert>, by: Option<u64>) -> Receipt<AlertOutcome> {
        alerts.sort_by_key(|alert| alert.status);
        let mut ours = 0;
        let names = self.names.or_called(|| self.identity.called());
        let outcomes: Vec<_> = alerts
            .iter()
            .map(|alert| {
                let outcome = self.rule(alert, &names, &mut ours, by);
                self.counts.alert(outcome.decision);
                outcome
            })
            .collect();
        self.forget_warnings();
        tell_all(&outcomes, |outcome| self.is_news(outcome));
        Receipt::of(outcomes)
    }

    /// Called once a payload.
    fn forget_warnings(&self) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.retain(|_, at| at.elapsed() < WARNED_EVERY);
    }

    /// Whether an alert of another node is the first of that node for a while.
    fn is_news(&self, outcome: &AlertOutcome) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = warned.len() < MOST_NODES && !warned.contains_key(&outcome.why);
        if is_news {
            warned.insert(outcome.why.clone(), Instant::now());
        }
        is_news
    }

    fn rule(
        &self,
        alert: &Alert,
        names: &Names,
        ours: &mut usize,
        by: Option<u64>,
    ) -> AlertOutcome {
        match names.target(&alert.labels) {
            AlertTarget::ThisNode => {}
            AlertTarget::OtherNode(NodeLabel { label, value }) => {
                let why = format!(
                    "its label {label} is {value:?}, and this node is {}; [webhook] node_names may \
                     list other names",
                    names.own.join(", ")
                );
                return AlertOutcome::on(alert, Decision::OtherNode, why);
            }
            AlertTarget::Unknown => {
                let labels = self.names.labels.join(", ");
                let why = format!("none of its labels names a node; looked at are {labels}");
                return AlertOutcome::on(alert, Decision::NoNode, why);
            }
        }
        *ours += 1;
        if *ours > MOST_ALERTS {
            let why = format!("of one payload, {MOST_ALERTS} alerts of a node are decided on");
            return AlertOutcome::on(alert, Decision::TooMany, why);
        }
        match (alert.status, by) {
            (Status::Firing, Some(by)) => {
                let why = format!(
                    "another dispatcher (number {by}) routes alerts to this node: run one dispatcher"
                );
                AlertOutcome::on(alert, Decision::NotYet, why)
            }
            (Status::Firing, None) => self.treat(alert),
            (Status::Resolved, _) => self.resolve(alert),
        }
    }

    fn treat(&self, alert: &Alert) -> AlertOutcome {
        let Some(ailment) = alert.ailment() else {
            let why = "the label ailment is missing";
            return AlertOutcome::on(alert, Decision::Refused, why);
        };
        if alert.is_not_evaluated() {
            let why =
                "Grafana could not evaluate the rule, so the alert says nothing about the node";
            return AlertOutcome::on(alert, Decision::Refused, why);
        }
        let ask = Ask {
            ailment: ailment.to_owned(),
            treatment: alert.treatment().map(str::to_owned),
            against: alert.kind().map(str::to_owned),
            trigger: alert.trigger(),
            duration: None,
            intent: Intent::AsConfigured,
            force: false,
        };
        match self.service.ask_once(&ask, &self.reports) {
            Ok(Once::Already(run)) => {
                let which = match run.trigger.is_alert_of(&ask.trigger) {
                    true => "of this alert",
                    false => "against the same",
                };
                let why = format!("treatment {} {which} is {}", run.id, run.state.name());
                of_run(alert, Decision::Duplicate, &run, why)
            }
            Ok(Once::Decided(AskOutcome::Begun(run))) => {
                // What could not be written or recorded was restored at once.
                let decision = if run.is_active() {
                    Decision::Begun
                } else {
                    Decision::Failed
                };
                of_run(alert, decision, &run, run.why.clone())
            }
            Ok(Once::Decided(AskOutcome::Would(run))) => would(alert, &run),
            Err(NotNow { refusal, passes }) => {
                let decision = if passes {
                    Decision::NotYet
                } else {
                    Decision::Refused
                };
                AlertOutcome::on(alert, decision, refusal.to_string())
            }
        }
    }

    fn resolve(&self, alert: &Alert) -> AlertOutcome {
        if !self.undo_resolved {
            let why = "it is resolved; [webhook] undo_resolved is false";
            return AlertOutcome::on(alert, Decision::LeftAlone, why);
        }
        match self
            .service
            .resolve(&alert.resolution(), alert.kind(), &self.reports)
        {
            Ok(Resolved::Nothing) => {
                AlertOutcome::on(alert, Decision::NothingToUndo, "nothing of it is active")
            }
            Ok(Resolved::FiresAgain(run)) => {
                let why = format!(
                    "this resolution is older than the firing that treatment {} is for",
                    run.id
                );
                of_run(alert, Decision::NothingToUndo, &run, why)
            }
            Ok(Resolved::Ended(run)) => of_run(alert, Decision::Undone, &run, run.why.clone()),
            Ok(Resolved::StillNeeded(run, kind)) => {
                let why = format!(
                    "{kind} is still present; the treatment continues until its \
                     time limit"
                );
                of_run(alert, Decision::LeftAlone, &run, why)
            }
            Err(refusal) => AlertOutcome::on(alert, Decision::Refused, refusal.to_string()),
        }
    }
}

fn of_run(alert: &Alert, decision: Decision, run: &Run, why: String) -> AlertOutcome {
    AlertOutcome {
        run: Some(run.id),
        treatment: Some(run.treatment.clone()),
        ..AlertOutcome::on(alert, decision, why)
    }
}

/// It has no number yet, as it is not begun.
fn would(alert: &Alert, run: &Run) -> AlertOutcome {
    let changes: Vec<_> = run.changes.iter().map(ToString::to_string).collect();
    let why = format!(
        "the configuration does not allow it to alerts ({} = \"alert\" in [treatments] would); it \
         would change {}",
        run.treatment,
        changes.join(", ")
    );
    AlertOutcome {
        run: None,
        ..of_run(alert, Decision::DryRun, run, why)
    }
}
