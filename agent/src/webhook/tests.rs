//! Alerts, as the engine of a node with a high rate decides on them.

use std::{sync::Arc, time::Instant};

use tokio::sync::watch;

use super::*;
use crate::{
    identity::Identity,
    model::{Ending, NodeReport, Snapshot},
    treatment::{
        Mode, TreatmentService,
        tests::{TestEngine, sick, well},
    },
};

const RACING: u64 = 120;
const TREATED: u64 = 60;

struct Setup {
    engine: TestEngine,
    service: Arc<TreatmentService>,
    handler: AlertHandler,
    reports: watch::Sender<Option<Snapshot>>,
}

fn snapshot(report: NodeReport) -> Option<Snapshot> {
    Some(Snapshot {
        report: Arc::new(report),
        taken: Instant::now(),
    })
}

fn setup(mode: Mode) -> Setup {
    with_engine(TestEngine::new(mode), true)
}

fn with_engine(engine: TestEngine, undo_resolved: bool) -> Setup {
    let (sender, reports) = watch::channel(snapshot(sick()));
    let names = Names {
        labels: vec!["node".to_owned()],
        own: vec!["setup-7".to_owned()],
        accept_unnamed: false,
    };
    let service = Arc::new(engine.service());
    let counts = Arc::new(Counts::new(&OF_WEBHOOK));
    Setup {
        handler: AlertHandler::new(
            Arc::clone(&service),
            reports,
            names,
            Identity::fake(),
            undo_resolved,
            counts,
        ),
        service,
        engine,
        reports: sender,
    }
}

impl Setup {
    async fn receive(&self, alerts: Vec<Alert>) -> Receipt<AlertOutcome> {
        self.handler.receive(Payload::of("", alerts), None).await
    }

    /// What is decided of one alert.
    async fn decide(&self, alert: Alert) -> Decision {
        let receipt = self.receive(vec![alert]).await;
        let decision = receipt.alerts[0].decision;
        assert_eq!(receipt.again, decision == Decision::NotYet);
        decision
    }

    fn value(&self) -> Option<u64> {
        self.engine.kernel.value()
    }
}

/// Of this node, with more labels than its name.
fn alert(status: Status, fingerprint: &str, labels: &[(&str, &str)]) -> Alert {
    let always = [
        ("alertname", "RateHigh"),
        ("node", "setup-7"),
        ("ailment", "rate"),
    ];
    let labels = always.iter().chain(labels);
    Alert {
        status,
        labels: labels
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        starts_at: "2026-11-25T10:00:00Z".to_owned(),
        ends_at: None,
        fingerprint: fingerprint.to_owned(),
    }
}

fn firing() -> Alert {
    alert(Status::Firing, "a", &[])
}

fn resolved() -> Alert {
    alert(Status::Resolved, "a", &[])
}

#[tokio::test]
async fn only_the_latest_dispatcher_has_something_begun() {
    let setup = setup(Mode::Alert);
    let send = async |alert, from| {
        let payload = Payload::of("", vec![alert]);
        let receipt = setup.handler.receive(payload, Some(from)).await;
        (receipt.alerts[0].decision, receipt.again)
    };
    let claim = Payload::of("", Vec::new());
    setup.handler.receive(claim, Some(7)).await;
    assert_eq!(setup.handler.claimed().routing().dispatcher, Some(7));
    // What an earlier one has sent before it was killed begins nothing, and is sent again.
    assert_eq!(send(firing(), 6).await, (Decision::NotYet, true));
    assert_eq!(setup.value(), Some(RACING));
    assert_eq!(send(firing(), 7).await, (Decision::Begun, false));
    // Undoing is allowed to anybody.
    assert_eq!(send(resolved(), 6).await, (Decision::Undone, false));
    assert_eq!(setup.handler.claimed().routing().deciding, 0);
}

#[tokio::test]
async fn what_an_alert_asks_for_is_done_once_and_undone_when_it_is_resolved() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    assert_eq!(setup.value(), Some(TREATED));
    assert_eq!(setup.decide(firing()).await, Decision::Duplicate);
    assert_eq!(setup.decide(resolved()).await, Decision::Undone);
    assert_eq!(setup.value(), Some(RACING));
    assert_eq!(setup.decide(resolved()).await, Decision::NothingToUndo);
    // A payload that comes again, late.
    assert_eq!(setup.decide(firing()).await, Decision::Duplicate);
    assert_eq!(setup.value(), Some(RACING));
}

#[tokio::test]
async fn the_next_agent_knows_what_an_alert_has_begun() {
    let first = setup(Mode::Alert);
    assert_eq!(first.decide(firing()).await, Decision::Begun);
    let second = with_engine(first.engine, true);
    assert_eq!(second.decide(firing()).await, Decision::Duplicate);
    assert_eq!(second.decide(resolved()).await, Decision::Undone);
    assert_eq!(second.value(), Some(RACING));
    let third = with_engine(second.engine, true);
    assert_eq!(third.decide(firing()).await, Decision::Duplicate);
    assert_eq!(third.value(), Some(RACING));
}

#[tokio::test]
async fn an_alert_that_comes_back_later_is_another_one() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    assert_eq!(setup.decide(resolved()).await, Decision::Undone);
    let later = Alert {
        starts_at: "2026-11-25T11:00:00Z".to_owned(),
        ..firing()
    };
    // It is looked at anew; the pause after the last treatment is against it.
    assert_eq!(setup.decide(later).await, Decision::Refused);
}

#[tokio::test]
async fn only_its_own_alert_undoes_a_treatment() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    let other = alert(Status::Resolved, "b", &[]);
    assert_eq!(setup.decide(other).await, Decision::NothingToUndo);
    let earlier = Alert {
        starts_at: "2026-11-25T09:00:00Z".to_owned(),
        ..resolved()
    };
    assert_eq!(setup.decide(earlier).await, Decision::NothingToUndo);
    assert_eq!(setup.value(), Some(TREATED));
}

#[tokio::test]
async fn a_resolved_alert_leaves_it_if_so_configured() {
    let setup = with_engine(TestEngine::new(Mode::Alert), false);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    assert_eq!(setup.decide(resolved()).await, Decision::LeftAlone);
    assert_eq!(setup.value(), Some(TREATED));
}

#[tokio::test]
async fn what_the_configuration_does_not_allow_to_alerts_is_only_told() {
    for (mode, decision, value) in [
        (Mode::Off, Decision::Refused, RACING),
        (Mode::DryRun, Decision::DryRun, RACING),
        (Mode::Manual, Decision::DryRun, RACING),
        (Mode::Alert, Decision::Begun, TREATED),
        (Mode::Auto, Decision::Begun, TREATED),
    ] {
        let setup = setup(mode);
        assert_eq!(setup.decide(firing()).await, decision, "{mode:?}");
        assert_eq!(setup.value(), Some(value), "{mode:?}");
    }
}

#[tokio::test]
async fn a_healthy_node_is_not_treated() {
    let setup = setup(Mode::Auto);
    setup.reports.send_replace(snapshot(well()));
    assert_eq!(setup.decide(firing()).await, Decision::Refused);
    assert_eq!(setup.value(), Some(RACING));
}

#[tokio::test]
async fn an_alert_chooses_among_what_there_is_and_no_more() {
    for (labels, decision) in [
        (&[("kind", "rate_high")][..], Decision::Begun),
        (&[("treatment", "slow_down")], Decision::Begun),
        (&[("kind", "")], Decision::Begun),
        (&[("kind", "rate_low")], Decision::Refused),
        (&[("treatment", "speed_up")], Decision::Refused),
        (&[("ailment", "other")], Decision::Refused),
        (&[("ailment", "")], Decision::Refused),
        (
            &[("key", "kernel.panic"), ("value", "1"), ("duration", "9h")],
            Decision::Begun,
        ),
        (&[("node", "setup-8")], Decision::OtherNode),
        (&[("node", "")], Decision::NoNode),
    ] {
        let setup = setup(Mode::Alert);
        let alert = alert(Status::Firing, "a", labels);
        assert_eq!(setup.decide(alert).await, decision, "{labels:?}");
        let value = if decision == Decision::Begun {
            TREATED
        } else {
            RACING
        };
        assert_eq!(setup.value(), Some(value), "{labels:?}");
    }
}

#[tokio::test]
async fn what_passes_is_to_be_asked_for_again() {
    let setup = setup(Mode::Alert);
    setup.reports.send_replace(None);
    assert_eq!(setup.decide(firing()).await, Decision::NotYet);
    setup.reports.send_replace(snapshot(sick()));
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
}

#[tokio::test]
async fn an_alert_that_comes_between_two_findings_is_to_come_again() {
    let setup = setup(Mode::Alert);
    setup.service.step(&sick());
    setup.service.step(&well());
    setup.reports.send_replace(snapshot(well()));
    assert_eq!(setup.decide(firing()).await, Decision::NotYet);
    let other = alert(Status::Firing, "b", &[("kind", "weak")]);
    assert_eq!(setup.decide(other).await, Decision::Refused);
    setup.reports.send_replace(snapshot(sick()));
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
}

#[tokio::test]
async fn one_of_the_same_ailment_has_nothing_more_to_begin() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    let second = |status| alert(status, "b", &[("kind", "rate_high")]);
    assert_eq!(
        setup.decide(second(Status::Firing)).await,
        Decision::Duplicate
    );
    let end = setup.decide(second(Status::Resolved)).await;
    assert_eq!(end, Decision::NothingToUndo);
    assert_eq!(setup.value(), Some(TREATED));
}

#[tokio::test]
async fn one_that_came_back_before_its_end_was_told_is_undone_by_the_later_end() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    let later = |alert| Alert {
        // The same instant as 10:05 of the first.
        starts_at: "2026-11-25T11:05:00.25+01:00".to_owned(),
        ..alert
    };
    assert_eq!(setup.decide(later(firing())).await, Decision::Duplicate);
    assert_eq!(setup.decide(later(resolved())).await, Decision::Undone);
    assert_eq!(setup.value(), Some(RACING));
}

/// An alert of a pair: when it began, and when it ended.
fn at(alert: Alert, starts_at: &str, ends_at: Option<&str>) -> Alert {
    let day = |time: &str| format!("2026-11-25T{time}Z");
    Alert {
        starts_at: day(starts_at),
        ends_at: ends_at.map(day),
        ..alert
    }
}

#[tokio::test]
async fn an_alert_of_a_pair_is_one_wherever_its_start_moves() {
    // The second server saw it first, so its start moves back.
    for starts_at in ["09:59:40", "10:00:00", "10:00:15"] {
        let setup = setup(Mode::Alert);
        assert_eq!(setup.decide(firing()).await, Decision::Begun);
        let moved = at(firing(), starts_at, None);
        assert_eq!(setup.decide(moved).await, Decision::Duplicate);
        let over = at(resolved(), "09:59:40", Some("10:04:00"));
        assert_eq!(setup.decide(over).await, Decision::Undone, "{starts_at}");
        assert_eq!(setup.value(), Some(RACING));
        // It comes again, of either server, and late.
        let late = at(firing(), starts_at, None);
        assert_eq!(setup.decide(late).await, Decision::Duplicate, "{starts_at}");
    }
}

#[tokio::test]
async fn a_start_that_moves_back_begins_nothing_again() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    setup.service.undo(None, Ending::Requested).unwrap();
    let moved = at(firing(), "09:59:40", None);
    assert_eq!(setup.decide(moved).await, Decision::Duplicate);
    assert_eq!(setup.value(), Some(RACING));
}

#[tokio::test]
async fn a_resolution_that_is_late_ends_no_newer_firing() {
    for restarts in [false, true] {
        let mut setup = setup(Mode::Alert);
        assert_eq!(setup.decide(firing()).await, Decision::Begun);
        // It ended at 10:05, and began again at 10:06, of which the agent hears first.
        let newer = at(firing(), "10:06:00", None);
        assert_eq!(setup.decide(newer).await, Decision::Duplicate);
        if restarts {
            setup = with_engine(setup.engine, true);
        }
        let late = at(resolved(), "10:00:00", Some("10:05:00"));
        assert_eq!(setup.decide(late).await, Decision::NothingToUndo);
        assert_eq!(setup.value(), Some(TREATED));
        let newest = at(resolved(), "10:06:00", Some("10:09:00"));
        assert_eq!(setup.decide(newest).await, Decision::Undone);
        assert_eq!(setup.value(), Some(RACING));
    }
}

/// Grafana 12 overwrites the start of an alert that is resolved by its end.
#[tokio::test]
async fn a_resolution_that_starts_at_its_end_ends_the_firing() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    let over = at(resolved(), "10:10:07", Some("10:10:07"));
    assert_eq!(setup.decide(over).await, Decision::Undone);
    assert_eq!(setup.value(), Some(RACING));
}

#[tokio::test]
async fn an_alert_about_a_rule_without_data_treats_nothing() {
    let setup = setup(Mode::Alert);
    let no_data = alert(Status::Firing, "a", &[("alertname", "DatasourceNoData")]);
    assert_eq!(setup.decide(no_data).await, Decision::Refused);
    assert_eq!(setup.value(), Some(RACING));
}

#[tokio::test]
async fn what_another_finding_still_needs_goes_on() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    let of = |kind| alert(Status::Resolved, "a", &[("kind", kind)]);
    assert_eq!(setup.decide(of("weak")).await, Decision::LeftAlone);
    assert_eq!(setup.value(), Some(TREATED));
    assert_eq!(setup.decide(of("rate_high")).await, Decision::Undone);
    assert_eq!(setup.value(), Some(RACING));
}

#[tokio::test]
async fn one_that_is_resolved_makes_room_in_the_same_payload() {
    let setup = setup(Mode::Alert);
    assert_eq!(setup.decide(firing()).await, Decision::Begun);
    let both = vec![alert(Status::Firing, "b", &[]), resolved()];
    let receipt = setup.receive(both).await;
    assert_eq!(receipt.alerts[0].decision, Decision::Undone);
    assert_eq!(receipt.alerts[1].decision, Decision::Refused);
}

#[tokio::test]
async fn the_work_that_one_payload_makes_is_bounded() {
    let setup = setup(Mode::Alert);
    let alerts: Vec<_> = (0..10_000)
        .map(|i| alert(Status::Firing, &i.to_string(), &[("ailment", "other")]))
        .collect();
    let receipt = setup.receive(alerts).await;
    let count = |decision| {
        receipt
            .alerts
            .iter()
            .filter(|it| it.decision == decision)
            .count()
    };
    assert_eq!(count(Decision::Refused), 100);
    assert_eq!(count(Decision::TooMany), 900);
    assert_eq!(receipt.unlisted, 9_000);
}
