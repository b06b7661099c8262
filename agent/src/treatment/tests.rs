//! The engine with a fake kernel, whose sysctls can be read-only, set by others, or gone,
//! and which can end the agent at any step.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{engine::permitted, journal::Step, *};
use crate::{
    durable::fake::FakeDisk,
    identity::Identity,
    model::{
        AilmentReport, Bound, Change, Coverage, Ending, Finding, NodeReport, Proposal, Run,
        RunState, Severity, Treatment, Trigger, Verdict,
    },
};

mod disk;

const KEY: &str = "net.test.events";
const NETNS: u32 = 7;

static SLOW_DOWN: Treatment = Treatment {
    name: "slow_down",
    effect: "the rate is lower",
    cost: "events wait",
    acts: "at once",
    applies: "anywhere",
    keys: &[Bound {
        key: KEY,
        allowed: 40..=80,
    }],
    durable: "send less",
};

/// The kernel's sysctls, and how it treats those who write them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeKernel(Arc<Mutex<Sysctl>>);

#[derive(Debug, Default)]
struct Sysctl {
    values: BTreeMap<(String, u32), u64>,
    /// The next writes fail.
    read_only: bool,
    /// Writes go nowhere, without an error.
    deaf: bool,
    /// It is the agent itself that does what the key is for.
    ends_with_agent: bool,
    /// The disk on which it is marked that a value is set.
    marked_on: Option<FakeDisk>,
}

impl FakeKernel {
    fn new(value: u64) -> Self {
        let kernel = Self::default();
        kernel.set(Some(value));
        kernel
    }

    fn set(&self, value: Option<u64>) {
        let mut sysctl = self.0.lock().unwrap();
        match value {
            Some(value) => sysctl.values.insert((KEY.to_owned(), NETNS), value),
            None => sysctl.values.remove(&(KEY.to_owned(), NETNS)),
        };
    }

    pub(crate) fn value(&self) -> Option<u64> {
        let sysctl = self.0.lock().unwrap();
        sysctl.values.get(&(KEY.to_owned(), NETNS)).copied()
    }
}

impl SysctlWriter for FakeKernel {
    fn read(&self, target: SysctlTarget<'_>) -> io::Result<Option<u64>> {
        let sysctl = self.0.lock().unwrap();
        Ok(sysctl
            .values
            .get(&(target.key.to_owned(), target.netns))
            .copied())
    }

    fn write(&self, target: SysctlTarget<'_>, value: u64) -> io::Result<()> {
        let mut sysctl = self.0.lock().unwrap();
        if sysctl.read_only {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        }
        if let Some(disk) = &sysctl.marked_on {
            disk.mark(value);
        }
        if !sysctl.deaf {
            sysctl
                .values
                .insert((target.key.to_owned(), target.netns), value);
        }
        Ok(())
    }

    fn ends_with_agent(&self, _key: &str) -> bool {
        self.0.lock().unwrap().ends_with_agent
    }
}

/// A node with a high rate, treated by an engine with its state in a folder.
pub(crate) struct TestEngine {
    pub(crate) kernel: FakeKernel,
    folder: tempfile::TempDir,
    disk: FakeDisk,
    policy: Policy,
    now: Now,
    boot: &'static str,
}

impl TestEngine {
    pub(crate) fn new(mode: Mode) -> Self {
        let policy = Policy {
            modes: BTreeMap::from([("slow_down".to_owned(), mode)]),
            ..Policy::default()
        };
        Self {
            kernel: FakeKernel::new(120),
            folder: tempfile::tempdir().unwrap(),
            disk: FakeDisk::new(),
            policy,
            now: Now {
                boot_seconds: 1_000.0,
                unix_seconds: 1e9,
            },
            boot: "this",
        }
    }

    fn engine(&self) -> Engine {
        let treatments = vec![("rate", &SLOW_DOWN)];
        let disk = self.disk.clone();
        let journal = Journal::open_on(
            self.folder.path(),
            |run| permitted(&treatments, run, self.boot),
            Box::new(move |file| disk.storage(file)),
        );
        Engine::with(
            journal,
            treatments,
            self.policy.clone(),
            Box::new(self.kernel.clone()),
            self.boot.to_owned(),
            self.now,
        )
    }

    /// The engine among its users, on the clocks of this machine.
    pub(crate) fn service(&self) -> TreatmentService {
        TreatmentService::of(self.engine(), self.folder.path())
    }

    fn pass(&mut self, seconds: f64) {
        self.now.boot_seconds += seconds;
        self.now.unix_seconds += seconds;
    }

    fn journal(&self) -> Vec<Run> {
        Journal::read(self.folder.path()).unwrap()
    }
}

/// The rate is high, or not; beside it an ailment that is as given.
fn report(is_high: bool, other: Verdict) -> NodeReport {
    beside(is_high, found(other, "other", "symptom"))
}

/// The same, with the report of the other ailment.
fn beside(is_high: bool, other: AilmentReport) -> NodeReport {
    let to = Change::new(KEY, NETNS, 120, 60);
    let rate = if is_high {
        Verdict::Critical
    } else {
        Verdict::Healthy
    };
    let rate = AilmentReport {
        proposals: vec![Proposal::new(&SLOW_DOWN, &["rate_high"], [to])],
        ..found(rate, "rate", "rate_high")
    };
    Identity::fake().report(vec![rate, other], 0)
}

/// With a finding if it is to be worse than healthy.
fn found(verdict: Verdict, ailment: &str, kind: &str) -> AilmentReport {
    let severity = match verdict {
        Verdict::Healthy | Verdict::Unknown => None,
        Verdict::Warning => Some(Severity::Warning),
        Verdict::Critical => Some(Severity::Critical),
    };
    let finding = severity.map(|severity| Finding {
        kind: kind.to_owned(),
        severity,
        summary: format!("it is {kind}"),
        evidence: Vec::new(),
        culprits: Vec::new(),
        victims: Vec::new(),
        remedies: Vec::new(),
        follows_load: false,
    });
    AilmentReport {
        verdict,
        findings: finding.into_iter().collect(),
        reading: serde_json::json!({}),
        ..AilmentReport::unmeasured(ailment, Coverage::Full, Vec::new())
    }
}

pub(crate) fn sick() -> NodeReport {
    report(true, Verdict::Healthy)
}

pub(crate) fn well() -> NodeReport {
    report(false, Verdict::Healthy)
}

fn by_hand() -> Ask {
    Ask {
        ailment: "rate".to_owned(),
        treatment: None,
        against: None,
        trigger: Trigger::Manual { uid: 0 },
        duration: None,
        intent: Intent::Apply,
        force: false,
    }
}

#[test]
fn a_finding_is_of_late_for_five_minutes() {
    let mut node = TestEngine::new(Mode::Alert);
    let mut engine = node.engine();
    let lately = |engine: &Engine, node: &TestEngine, ask: &Ask| {
        engine.was_found_lately(ask, &well(), node.now)
    };
    assert!(!lately(&engine, &node, &by_hand()));
    engine.step(&sick(), node.now);
    node.pass(299.0);
    engine.step(&well(), node.now);
    assert!(lately(&engine, &node, &by_hand()));
    let other_kind = Ask {
        against: Some("symptom".to_owned()),
        ..by_hand()
    };
    assert!(!lately(&engine, &node, &other_kind));
    node.pass(1.0);
    assert!(!lately(&engine, &node, &by_hand()));
}

fn last(engine: &Engine) -> &Run {
    engine.runs().last().expect("something was begun")
}

#[test]
fn what_helps_is_kept_until_its_time_is_over() {
    let mut node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    assert_eq!(last(&engine).state, RunState::Applied);
    assert_eq!(node.kernel.value(), Some(60));
    node.pass(91.0);
    engine.step(&well(), node.now);
    assert_eq!(last(&engine).state, RunState::Confirmed);
    node.pass(3_600.0);
    engine.step(&well(), node.now);
    assert_eq!(last(&engine).ending, Some(Ending::Expired));
    assert_eq!(node.kernel.value(), Some(120));
}

/// The outcomes that it has counted, each once.
fn counted(engine: &Engine) -> Vec<&str> {
    let outcomes = engine.counts().outcomes.iter();
    outcomes.map(|it| it.outcome.as_str()).collect()
}

#[test]
fn what_does_not_help_is_undone_and_not_tried_again_soon() {
    let mut node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    node.pass(91.0);
    engine.step(&sick(), node.now);
    assert_eq!(last(&engine).ending, Some(Ending::Ineffective));
    assert_eq!(node.kernel.value(), Some(120));
    assert_eq!(counted(&engine), ["applied", "ineffective"]);
    node.pass(600.0);
    engine.step(&sick(), node.now);
    assert_eq!(engine.runs().len(), 1);
    node.pass(3_600.0);
    engine.step(&sick(), node.now);
    assert_eq!(engine.runs().len(), 2);
}

#[test]
fn what_harms_another_is_undone_at_once() {
    let mut node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    node.pass(5.0);
    engine.step(&report(true, Verdict::Warning), node.now);
    assert_eq!(last(&engine).ending, Some(Ending::Harmful));
    assert_eq!(node.kernel.value(), Some(120));
    assert_eq!(counted(&engine), ["applied", "harmful"]);
}

#[test]
fn what_follows_the_load_of_the_node_is_no_harm() {
    for (follows_load, state) in [(true, RunState::Applied), (false, RunState::Undone)] {
        let mut node = TestEngine::new(Mode::Manual);
        let mut engine = node.engine();
        let well = found(Verdict::Healthy, "other", "symptom");
        engine
            .ask(&by_hand(), &beside(true, well), node.now)
            .unwrap();
        node.pass(5.0);
        let mut worse = found(Verdict::Critical, "other", "symptom");
        worse.findings[0].follows_load = follows_load;
        engine.step(&beside(true, worse), node.now);
        assert_eq!(engine.runs()[0].state, state, "{follows_load}");
    }
}

#[test]
fn a_healthy_node_is_left_alone() {
    let node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&well(), node.now);
    assert_eq!(engine.runs(), []);
    let refused = engine.ask(&by_hand(), &well(), node.now);
    assert!(matches!(refused, Err(Refusal::Healthy(_))), "{refused:?}");
    let forced = Ask {
        force: true,
        ..by_hand()
    };
    assert!(engine.ask(&forced, &well(), node.now).is_ok());
}

/// What the reading found the key at.
fn at(value: u64) -> NodeReport {
    let mut report = sick();
    report.ailments[0].proposals[0].changes[0].from = value;
    report
}

#[test]
fn a_key_that_somebody_else_has_written_is_left_alone_unless_forced() {
    let node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    engine.step(&at(120), node.now);
    engine.step(&at(200), node.now);
    node.kernel.set(Some(200));
    let refused = engine.ask(&by_hand(), &at(200), node.now);
    assert!(matches!(refused, Err(Refusal::Foreign(_))), "{refused:?}");
    assert_eq!(node.kernel.value(), Some(200));
    let forced = Ask {
        force: true,
        ..by_hand()
    };
    assert!(engine.ask(&forced, &at(200), node.now).is_ok());
    assert_eq!(node.kernel.value(), Some(60));
}

#[test]
fn what_the_agent_itself_wrote_and_restored_may_be_treated_again() {
    let mut node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    engine.step(&at(120), node.now);
    engine.ask(&by_hand(), &at(120), node.now).unwrap();
    engine.step(&at(120), node.now);
    engine.undo(None, Ending::Requested, node.now).unwrap();
    node.pass(10_000.0);
    engine.step(&at(120), node.now);
    assert!(engine.ask(&by_hand(), &at(120), node.now).is_ok());
}

#[test]
fn a_value_that_is_set_back_under_a_run_is_somebody_elses_key_from_then_on() {
    let mut node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    engine.ask(&by_hand(), &at(120), node.now).unwrap();
    node.kernel.set(Some(77));
    node.pass(1.0);
    engine.step(&at(120), node.now);
    assert_eq!(last(&engine).state, RunState::Overridden);
    node.pass(10_000.0);
    let refused = engine.ask(&by_hand(), &at(77), node.now);
    assert!(matches!(refused, Err(Refusal::Foreign(_))), "{refused:?}");
}

#[test]
fn the_mode_says_who_may() {
    let alert = Trigger::Alert {
        fingerprint: "f".to_owned(),
        starts_at: "t".to_owned(),
        until: None,
    };
    let hand = Trigger::Manual { uid: 0 };
    for (mode, trigger, begins) in [
        (Mode::DryRun, &hand, false),
        (Mode::Manual, &hand, true),
        (Mode::Manual, &alert, false),
        (Mode::Alert, &alert, true),
        (Mode::Alert, &Trigger::Auto, false),
        (Mode::Auto, &Trigger::Auto, true),
    ] {
        let node = TestEngine::new(mode);
        let ask = Ask {
            trigger: trigger.clone(),
            intent: Intent::AsConfigured,
            ..by_hand()
        };
        let decision = node.engine().ask(&ask, &sick(), node.now).unwrap();
        assert_eq!(
            matches!(decision, AskOutcome::Begun(_)),
            begins,
            "{mode:?} {trigger:?}"
        );
        let wanted = if begins { 60 } else { 120 };
        assert_eq!(node.kernel.value(), Some(wanted), "{mode:?} {trigger:?}");
    }
    let node = TestEngine::new(Mode::Off);
    let refused = node.engine().ask(&by_hand(), &sick(), node.now);
    assert!(matches!(refused, Err(Refusal::Off(_))), "{refused:?}");
}

#[test]
fn only_one_is_begun_at_a_time_and_few_in_an_hour() {
    let mut node = TestEngine::new(Mode::Auto);
    node.policy.max_per_hour = 1;
    node.policy.cooldown = Duration::ZERO;
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    let refused = engine.ask(&by_hand(), &sick(), node.now);
    assert!(matches!(refused, Err(Refusal::Busy(1))), "{refused:?}");
    engine.undo(None, Ending::Requested, node.now).unwrap();
    let ask = Ask {
        trigger: Trigger::Auto,
        ..by_hand()
    };
    node.pass(1.0);
    let refused = engine.ask(&ask, &sick(), node.now);
    assert!(matches!(refused, Err(Refusal::HourlyCap(1))), "{refused:?}");
    assert!(engine.ask(&by_hand(), &sick(), node.now).is_ok());
}

#[test]
fn while_paused_nothing_begins_and_what_is_active_ends() {
    let mut node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    engine.pause(true);
    node.pass(4_000.0);
    engine.step(&sick(), node.now);
    assert_eq!(node.kernel.value(), Some(120));
    node.pass(4_000.0);
    let refused = engine.ask(&by_hand(), &sick(), node.now);
    assert_eq!(refused, Err(Refusal::Paused));
}

/// A switch of the agent is off when it was killed, which nobody has done to it: the next
/// agent switches it on again, as often as that happens.
#[test]
fn what_the_agent_does_itself_goes_on_with_the_next_one() {
    let mut node = TestEngine::new(Mode::Auto);
    node.policy.reapply = 0;
    node.kernel.0.lock().unwrap().ends_with_agent = true;
    node.engine().step(&sick(), node.now);
    for _ in 0..3 {
        assert_eq!(node.kernel.value(), Some(60));
        node.kernel.set(Some(120));
        let mut engine = node.engine();
        node.pass(1.0);
        engine.step(&sick(), node.now);
        assert_eq!(last(&engine).state, RunState::Applied);
        assert!(engine.counts().drifts.is_empty(), "{:?}", engine.counts());
    }
    node.kernel.set(Some(120));
    let undone = node
        .engine()
        .undo(None, Ending::Requested, node.now)
        .unwrap();
    assert_eq!(undone[0].state, RunState::Undone);
    assert_eq!(node.kernel.value(), Some(120));
}

#[test]
fn a_value_out_of_range_is_never_written() {
    let node = TestEngine::new(Mode::Auto);
    let mut report = sick();
    report.ailments[0].proposals[0].changes[0].to = 20;
    let refused = node.engine().ask(&by_hand(), &report, node.now);
    assert!(
        matches!(refused, Err(Refusal::OutOfRange(_))),
        "{refused:?}"
    );
    report.ailments[0].proposals[0].changes[0].to = 60;
    report.ailments[0].proposals[0].changes[0].key = "kernel.panic".to_owned();
    let refused = node.engine().ask(&by_hand(), &report, node.now);
    assert!(
        matches!(refused, Err(Refusal::OutOfRange(_))),
        "{refused:?}"
    );
    assert_eq!(node.journal(), []);
}

#[test]
fn what_is_unsafe_here_is_not_done() {
    let node = TestEngine::new(Mode::Auto);
    let mut report = sick();
    report.ailments[0].proposals[0].objection = Some("asleep".to_owned());
    let refused = node.engine().ask(&by_hand(), &report, node.now);
    assert_eq!(refused, Err(Refusal::Unsafe("asleep".to_owned())));
}

#[test]
fn unknown_names_are_told_what_there_is() {
    let node = TestEngine::new(Mode::Auto);
    let ask = Ask {
        ailment: "puls".to_owned(),
        ..by_hand()
    };
    let refused = node.engine().ask(&ask, &sick(), node.now).unwrap_err();
    assert!(refused.to_string().contains("rate"), "{refused}");
    let ask = Ask {
        treatment: Some("speed_up".to_owned()),
        ..by_hand()
    };
    let refused = node.engine().ask(&ask, &sick(), node.now).unwrap_err();
    assert!(refused.to_string().contains("slow_down"), "{refused}");
}

#[test]
fn what_cannot_be_written_has_failed_and_nothing_is_left() {
    for deaf in [false, true] {
        let node = TestEngine::new(Mode::Auto);
        {
            let mut sysctl = node.kernel.0.lock().unwrap();
            sysctl.read_only = !deaf;
            sysctl.deaf = deaf;
        }
        let mut engine = node.engine();
        engine.step(&sick(), node.now);
        assert_eq!(last(&engine).state, RunState::Failed, "deaf: {deaf}");
        assert_eq!(node.kernel.value(), Some(120));
        assert_eq!(node.journal()[0].state, RunState::Failed);
    }
}

#[test]
fn what_was_set_back_is_written_again_and_then_given_up() {
    let mut node = TestEngine::new(Mode::Auto);
    node.policy.reapply = 2;
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    for _ in 0..2 {
        node.kernel.set(Some(120));
        engine.step(&sick(), node.now);
        assert_eq!(node.kernel.value(), Some(60));
    }
    node.kernel.set(Some(120));
    engine.step(&sick(), node.now);
    assert_eq!(node.kernel.value(), Some(120));
    assert_eq!(last(&engine).ending, Some(Ending::Contended));
    assert!(
        last(&engine).why.contains("send less"),
        "{:?}",
        last(&engine)
    );
    assert_eq!(engine.counts().drifts["slow_down"], 3);
}

#[test]
fn a_module_that_comes_back_is_treated_again() {
    let node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    node.kernel.set(None);
    engine.step(&sick(), node.now);
    assert!(last(&engine).is_active());
    // The default of a module may be another than what was there.
    node.kernel.set(Some(100));
    engine.step(&sick(), node.now);
    assert_eq!(node.kernel.value(), Some(60));
    assert_eq!(engine.counts().drifts.get("slow_down"), None);
    engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(node.kernel.value(), Some(100));
}

#[test]
fn what_somebody_else_has_set_is_left() {
    let node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    node.kernel.set(Some(77));
    engine.step(&sick(), node.now);
    assert_eq!(last(&engine).state, RunState::Overridden);
    assert_eq!(node.kernel.value(), Some(77));
}

#[test]
fn a_new_namespace_is_treated_too() {
    let node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    let target = SysctlTarget {
        key: KEY,
        netns: NETNS + 1,
    };
    node.kernel.write(target, 130).unwrap();
    let mut report = sick();
    report.ailments[0].proposals[0].changes = vec![Change::new(KEY, NETNS + 1, 130, 60)];
    engine.step(&report, node.now);
    assert_eq!(node.kernel.read(target).unwrap(), Some(60));
    engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(node.kernel.read(target).unwrap(), Some(130));
    assert_eq!(node.kernel.value(), Some(120));
}

/// The state of the journal and the kernel after each step of a treatment; the next agent
/// undoes, or goes on and undoes later, and always ends with what was there before.
#[test]
fn after_a_kill_at_any_step_the_next_agent_puts_all_back() {
    let intended = |node: &TestEngine| {
        let mut engine = node.engine();
        engine.step(&sick(), node.now);
        let mut run = last(&engine).clone();
        run.state = RunState::Intended;
        let (mut journal, _) = Journal::open(node.folder.path(), |_| Ok(())).unwrap();
        journal.append(&run, &[], Step::Holds, 0.0).unwrap();
    };
    // Killed before the write, and after it.
    for value in [120, 60] {
        let node = TestEngine::new(Mode::Auto);
        intended(&node);
        node.kernel.set(Some(value));
        let engine = node.engine();
        assert_eq!(last(&engine).ending, Some(Ending::Interrupted), "{value}");
        assert_eq!(node.kernel.value(), Some(120), "{value}");
    }
    // Killed while it was watched, or kept.
    for kept in [false, true] {
        let mut node = TestEngine::new(Mode::Auto);
        let mut engine = node.engine();
        engine.step(&sick(), node.now);
        if kept {
            node.pass(91.0);
            engine.step(&well(), node.now);
        }
        drop(engine);
        assert!(last(&node.engine()).is_active());
        assert_eq!(node.kernel.value(), Some(60));
        node.pass(4_000.0);
        let engine = node.engine();
        assert_eq!(last(&engine).ending, Some(Ending::Expired));
        assert_eq!(node.kernel.value(), Some(120));
    }
    // Killed while it was undone: the value is back, the journal does not know.
    let node = TestEngine::new(Mode::Auto);
    node.engine().step(&sick(), node.now);
    node.kernel.set(Some(120));
    let mut engine = node.engine();
    engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(last(&engine).state, RunState::Undone);
    assert_eq!(node.kernel.value(), Some(120));
}

#[test]
fn after_a_reboot_nothing_is_written() {
    let mut node = TestEngine::new(Mode::Auto);
    node.engine().step(&sick(), node.now);
    node.boot = "the next";
    node.now.boot_seconds = 10.0;
    node.kernel.set(Some(60));
    let engine = node.engine();
    assert_eq!(last(&engine).state, RunState::Rebooted);
    assert_eq!(node.kernel.value(), Some(60), "it is somebody else's now");
}

#[test]
fn the_agents_end_undoes_or_keeps() {
    for (at_exit, left) in [(AtExit::Undo, 120), (AtExit::Keep, 60)] {
        let mut node = TestEngine::new(Mode::Auto);
        node.policy.at_exit = at_exit;
        let mut engine = node.engine();
        engine.step(&sick(), node.now);
        engine.leave(node.now);
        assert_eq!(node.kernel.value(), Some(left), "{at_exit:?}");
    }
}

/// A node after its agent has treated it and was stopped ten seconds ago.
fn stopped(mode: Mode) -> TestEngine {
    let mut node = TestEngine::new(mode);
    let mut engine = node.engine();
    engine.ask(&by_hand(), &sick(), node.now).unwrap();
    node.pass(20.0);
    engine.leave(node.now);
    assert_eq!(node.kernel.value(), Some(120));
    node.pass(10.0);
    node
}

#[test]
fn the_next_agent_resumes_what_the_stop_of_the_last_has_undone() {
    let mut node = stopped(Mode::Manual);
    let mut engine = node.engine();
    assert_eq!(node.kernel.value(), Some(120), "to read is not to resume");
    engine.resume(node.now);
    assert_eq!(node.kernel.value(), Some(60));
    let run = last(&engine);
    assert_eq!((run.id, run.state), (1, RunState::Applied));
    // It is watched for as long as it was not, and ends when it would have.
    assert_eq!((run.watched_until, run.ends), (1_100.0, 4_600.0));
    let again = node.engine();
    assert_eq!(again.runs(), engine.runs(), "the journal knows it");
    node.pass(4_000.0);
    engine.step(&sick(), node.now);
    assert_eq!(last(&engine).ending, Some(Ending::Expired));
    assert_eq!(node.kernel.value(), Some(120));
}

#[test]
fn what_has_been_watched_is_not_watched_again() {
    let mut node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    engine.ask(&by_hand(), &sick(), node.now).unwrap();
    node.pass(200.0);
    engine.leave(node.now);
    let mut next = node.engine();
    next.resume(node.now);
    assert_eq!(last(&next).state, RunState::Confirmed);
}

#[test]
fn nothing_is_resumed_that_anything_speaks_against() {
    type Against = fn(&mut TestEngine);
    let against: [(&str, Against); 6] = [
        ("long ago", |node| node.pass(300.0)),
        ("not configured", |node| {
            node.policy.resume_within = Duration::ZERO;
        }),
        ("switched off", |node| {
            node.policy.modes.insert("slow_down".to_owned(), Mode::Off);
        }),
        ("booted since", |node| node.boot = "the next"),
        ("set to what is wanted already", |node| {
            node.kernel.set(Some(60));
        }),
        ("gone", |node| node.kernel.set(None)),
    ];
    for (why, change) in against {
        let mut node = stopped(Mode::Manual);
        change(&mut node);
        let value = node.kernel.value();
        let mut engine = node.engine();
        engine.resume(node.now);
        assert_eq!(node.kernel.value(), value, "{why}");
        assert!(!last(&engine).is_active(), "{why}");
    }
}

#[test]
fn what_a_person_has_ended_is_not_resumed() {
    let node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    engine.ask(&by_hand(), &sick(), node.now).unwrap();
    engine.undo(None, Ending::Requested, node.now).unwrap();
    let mut next = node.engine();
    next.resume(node.now);
    assert_eq!(node.kernel.value(), Some(120));
    // Nor while treatments are paused, or what another has come after.
    let node = stopped(Mode::Manual);
    let mut next = node.engine();
    next.pause(true);
    next.resume(node.now);
    assert_eq!(node.kernel.value(), Some(120));
    next.pause(false);
    let forced = Ask {
        force: true,
        ..by_hand()
    };
    next.ask(&forced, &sick(), node.now).unwrap();
    next.undo(None, Ending::Requested, node.now).unwrap();
    next.resume(node.now);
    assert_eq!(node.kernel.value(), Some(120));
}

/// The wall clock may be set to anything.
#[test]
fn a_clock_that_goes_back_prolongs_nothing() {
    let mut node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    node.now.boot_seconds += 4_000.0;
    node.now.unix_seconds -= 1e6;
    engine.step(&sick(), node.now);
    assert_eq!(last(&engine).ending, Some(Ending::Expired));
}

#[test]
fn a_line_that_was_cut_short_was_never_done() {
    let node = TestEngine::new(Mode::Auto);
    node.engine().step(&sick(), node.now);
    let path = node.folder.path().join(Journal::FILE);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"unix_seconds\":1,\"cour");
    std::fs::write(&path, text).unwrap();
    let engine = node.engine();
    assert_eq!(engine.trouble(), None);
    assert_eq!(last(&engine).state, RunState::Applied);
}

fn sealed(text: &str) -> String {
    let node = TestEngine::new(Mode::Auto);
    let path = node.folder.path().join(Journal::FILE);
    std::fs::write(&path, text).unwrap();
    let mut engine = node.engine();
    engine.step(&sick(), node.now);
    assert_eq!(node.kernel.value(), Some(120));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it is left");
    let refused = engine.ask(&by_hand(), &sick(), node.now);
    assert!(matches!(refused, Err(Refusal::Journal(_))), "{refused:?}");
    engine.trouble().unwrap()
}

#[test]
fn a_damaged_journal_is_left_and_nothing_is_treated() {
    let why = sealed("{\"nodemedic_journal\":1}\nnonsense\n{\"unix_seconds\":1}\n");
    assert!(why.contains("line 2"), "{why}");
    assert!(why.contains("move the file away"), "{why}");
}

#[test]
fn a_journal_of_a_newer_agent_is_left_and_nothing_is_treated() {
    let why = sealed("{\"nodemedic_journal\":2}\n{\"a\":1}\n");
    assert!(why.contains("version 2"), "{why}");
}

#[test]
fn a_full_disk_lets_nothing_begin() {
    let node = TestEngine::new(Mode::Auto);
    node.disk.disk().free = 0;
    let mut engine = node.engine();
    let refused = engine.ask(&by_hand(), &sick(), node.now).unwrap_err();
    assert!(refused.to_string().contains("storage space"), "{refused}");
    assert_eq!(node.kernel.value(), Some(120));
    assert!(engine.trouble().is_some());
    node.disk.disk().free = 1 << 20;
    assert!(engine.ask(&by_hand(), &sick(), node.now).is_ok());
    assert_eq!(engine.trouble(), None);
}

#[test]
fn old_runs_are_forgotten_and_ids_go_on() {
    let mut node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    for _ in 0..105 {
        engine.ask(&by_hand(), &sick(), node.now).unwrap();
        engine.undo(None, Ending::Requested, node.now).unwrap();
        node.pass(1.0);
    }
    let engine = node.engine();
    assert_eq!(engine.runs().len(), 100);
    assert_eq!(last(&engine).id, 105);
    assert_eq!(node.journal().len(), 100);
}

#[test]
fn after_it_has_left_nothing_begins() {
    let node = TestEngine::new(Mode::Auto);
    let mut engine = node.engine();
    engine.leave(node.now);
    engine.step(&sick(), node.now);
    assert_eq!(
        engine.ask(&by_hand(), &sick(), node.now),
        Err(Refusal::Ending)
    );
    assert_eq!(node.kernel.value(), Some(120));
}

#[test]
fn what_is_against_something_else_is_not_taken() {
    let node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    let against = |kind: &str| Ask {
        against: Some(kind.to_owned()),
        ..by_hand()
    };
    let refused = engine.ask(&against("rate_low"), &sick(), node.now);
    assert!(
        matches!(refused, Err(Refusal::NoTreatment(_))),
        "{refused:?}"
    );
    assert!(engine.ask(&against("rate_high"), &sick(), node.now).is_ok());
}
