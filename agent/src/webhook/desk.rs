//! Decides on alerts with the engine of this node.

use std::sync::Arc;

use tokio::{sync::Mutex, task::spawn_blocking};

use super::{Alert, Counts, Decision, Names, Payload, Receipt, Receiver, Ruling, Status, Whose};
use crate::{
    monitor::Reports,
    treatment::{self, Ask, Course, Intent, NotNow, Once, Practice, Resolved, State},
};

/// Alerts of this node in one payload that are decided on. It has some ten rules.
const MOST_ALERTS: usize = 100;

/// Decides on alerts of this node, one payload at a time: the engine blocks, and the
/// threads for that are few.
#[derive(Debug)]
pub struct Desk {
    clerk: Arc<Mutex<Clerk>>,
    counts: Arc<Counts>,
}

/// What it takes to decide.
#[derive(Debug)]
struct Clerk {
    practice: Arc<Practice>,
    reports: Reports,
    names: Names,
    undo_resolved: bool,
    counts: Arc<Counts>,
}

impl Desk {
    /// A desk at this practice.
    pub fn new(
        practice: Arc<Practice>,
        reports: Reports,
        names: Names,
        undo_resolved: bool,
        counts: Arc<Counts>,
    ) -> Self {
        let clerk = Clerk {
            practice,
            reports,
            names,
            undo_resolved,
            counts: Arc::clone(&counts),
        };
        Self {
            clerk: Arc::new(Mutex::new(clerk)),
            counts,
        }
    }
}

impl Receiver for Desk {
    type Ruling = Ruling;

    async fn receive(&self, payload: Payload) -> Receipt<Ruling> {
        let clerk = Arc::clone(&self.clerk).lock_owned().await;
        Receipt::of_task(spawn_blocking(move || clerk.decide(payload.alerts)).await)
    }

    fn count(&self, code: u16, truncated: u64) {
        self.counts.request(code, truncated);
    }
}

impl Clerk {
    /// Those that are resolved go first, as they make room for others.
    fn decide(&self, mut alerts: Vec<Alert>) -> Receipt<Ruling> {
        alerts.sort_by_key(|alert| alert.status);
        let mut ours = 0;
        let rulings: Vec<_> = alerts
            .iter()
            .map(|alert| {
                let ruling = self.rule(alert, &mut ours);
                self.counts.alert(ruling.decision);
                ruling.tell(alert);
                ruling
            })
            .collect();
        let again = rulings.iter().any(|it| it.decision.is_passing());
        Receipt {
            alerts: rulings,
            again,
        }
    }

    fn rule(&self, alert: &Alert, ours: &mut usize) -> Ruling {
        match self.names.whose(&alert.labels) {
            Whose::Ours => {}
            Whose::Others(node) => {
                return Ruling::on(alert, Decision::OtherNode, format!("it is of {node}"));
            }
            Whose::Nobodys => {
                let labels = self.names.labels.join(", ");
                let why = format!("none of its labels names a node; looked at are {labels}");
                return Ruling::on(alert, Decision::NoNode, why);
            }
        }
        *ours += 1;
        if *ours > MOST_ALERTS {
            let why = format!("of one payload, {MOST_ALERTS} alerts of a node are decided on");
            return Ruling::on(alert, Decision::TooMany, why);
        }
        match alert.status {
            Status::Firing => self.treat(alert),
            Status::Resolved => self.resolve(alert),
        }
    }

    fn treat(&self, alert: &Alert) -> Ruling {
        let Some(ailment) = alert.ailment() else {
            let why = "it has no label ailment, which says what to treat";
            return Ruling::on(alert, Decision::Refused, why);
        };
        let ask = Ask {
            ailment: ailment.to_owned(),
            treatment: alert.treatment().map(str::to_owned),
            against: alert.kind().map(str::to_owned),
            trigger: alert.trigger(),
            duration: None,
            intent: Intent::AsConfigured,
            force: false,
        };
        match self.practice.ask_once(&ask, &self.reports) {
            Ok(Once::Already(course)) => {
                let whose = match course.trigger == ask.trigger {
                    true => "of this alert",
                    false => "against the same",
                };
                let why = format!("treatment {} {whose} is {}", course.id, course.state.name());
                of_course(alert, Decision::Duplicate, &course, why)
            }
            Ok(Once::Decided(treatment::Decision::Begun(course))) => {
                let decision = match course.state {
                    State::Failed => Decision::Failed,
                    _ => Decision::Begun,
                };
                of_course(alert, decision, &course, course.why.clone())
            }
            Ok(Once::Decided(treatment::Decision::Would(course))) => would(alert, &course),
            Err(NotNow { refusal, passes }) => {
                let decision = if passes {
                    Decision::NotYet
                } else {
                    Decision::Refused
                };
                Ruling::on(alert, decision, refusal.to_string())
            }
        }
    }

    fn resolve(&self, alert: &Alert) -> Ruling {
        if !self.undo_resolved {
            let why = "it is resolved; [webhook] undo_resolved is false";
            return Ruling::on(alert, Decision::LeftAlone, why);
        }
        match self
            .practice
            .resolve(&alert.trigger(), alert.kind(), &self.reports)
        {
            Ok(Resolved::Nothing) => {
                Ruling::on(alert, Decision::NothingToUndo, "nothing of it is active")
            }
            Ok(Resolved::Ended(course)) => {
                of_course(alert, Decision::Undone, &course, course.why.clone())
            }
            Ok(Resolved::StillNeeded(course, kind)) => {
                let why = format!("{kind} is still found; it goes on until its time is over");
                of_course(alert, Decision::LeftAlone, &course, why)
            }
            Err(refusal) => Ruling::on(alert, Decision::Refused, refusal.to_string()),
        }
    }
}

fn of_course(alert: &Alert, decision: Decision, course: &Course, why: String) -> Ruling {
    Ruling {
        course: Some(course.id),
        treatment: Some(course.treatment.clone()),
        ..Ruling::on(alert, decision, why)
    }
}

/// It has no number yet, as it is not begun.
fn would(alert: &Alert, course: &Course) -> Ruling {
    let changes: Vec<_> = course.changes.iter().map(ToString::to_string).collect();
    let why = format!(
        "the configuration does not allow it to alerts ({} = \"alert\" in [treatments] would); it \
         would change {}",
        course.treatment,
        changes.join(", ")
    );
    Ruling {
        course: None,
        ..of_course(alert, Decision::DryRun, course, why)
    }
}
