//! Disks that are full, read-only or without power, and journals of somebody else.

use super::*;
use crate::durable::fake::{Operation, after_power_failure};

fn treated(node: &TestEngine) -> Engine {
    let mut engine = node.engine();
    engine.ask(&by_hand(), &sick(), node.now).unwrap();
    assert_eq!(node.kernel.value(), Some(60));
    engine
}

#[test]
fn on_a_disk_that_fills_up_a_treatment_is_undone_and_recorded() {
    let mut node = TestEngine::new(Mode::Manual);
    let mut engine = treated(&node);
    node.disk.disk().free = 0;
    node.pass(91.0);
    engine.step(&well(), node.now);
    assert_eq!(last(&engine).state, RunState::Confirmed);
    engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(node.kernel.value(), Some(120));
    assert_eq!(node.journal()[0].state, RunState::Undone);
    let refused = engine.ask(&by_hand(), &sick(), node.now);
    assert!(matches!(refused, Err(Refusal::Journal(_))), "{refused:?}");
    assert_eq!(node.kernel.value(), Some(120));
}

/// The room that the killed agent held is its successor's.
#[test]
fn after_a_kill_on_a_full_disk_the_next_agent_undoes_and_records() {
    let node = TestEngine::new(Mode::Manual);
    drop(treated(&node));
    node.disk.disk().free = 0;
    let mut engine = node.engine();
    assert!(last(&engine).is_active());
    engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(node.kernel.value(), Some(120));
    assert_eq!(last(&engine).why, "asked for");
    let engine = node.engine();
    assert_eq!(last(&engine).state, RunState::Undone);
    assert_eq!(node.kernel.value(), Some(120));
}

#[test]
fn what_is_undone_and_cannot_be_recorded_says_so_and_is_not_set_again() {
    let mut node = TestEngine::new(Mode::Auto);
    let mut engine = treated(&node);
    node.disk.disk().sync_fails = true;
    let undone = engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(node.kernel.value(), Some(120));
    assert_eq!(undone[0].state, RunState::Undone);
    let why = &undone[0].why;
    assert!(why.contains("undone, but not recorded"), "{why}");
    assert!(why.contains("will not set it again"), "{why}");
    // The next agent finds a run that goes on.
    drop(engine);
    assert!(node.journal()[0].is_active());
    let mut engine = node.engine();
    assert!(!last(&engine).is_active());
    node.policy.modes.clear();
    node.pass(1.0);
    engine.step(&sick(), node.now);
    assert_eq!(node.kernel.value(), Some(120));
}

#[test]
fn what_could_not_be_recorded_is_recorded_as_soon_as_it_can() {
    let node = TestEngine::new(Mode::Manual);
    let mut engine = treated(&node);
    node.disk.disk().sync_fails = true;
    engine.undo(None, Ending::Requested, node.now).unwrap();
    engine.step(&well(), node.now);
    assert!(last(&engine).why.contains("not recorded"));
    node.disk.disk().sync_fails = false;
    engine.step(&well(), node.now);
    assert_eq!(last(&engine).why, "asked for");
    let [run] = node.journal().try_into().unwrap();
    assert_eq!(
        (run.state, run.why.as_str()),
        (RunState::Undone, "asked for")
    );
}

#[test]
fn a_journal_that_can_only_be_read_is_undone_all_the_same() {
    let mut node = TestEngine::new(Mode::Manual);
    drop(treated(&node));
    node.disk.disk().is_read_only = true;
    let mut engine = node.engine();
    assert!(engine.journal_trouble().unwrap().contains("read-only"));
    assert!(last(&engine).is_active());
    engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(node.kernel.value(), Some(120));
    // So is one that has expired when the agent starts.
    node.kernel.set(Some(60));
    node.pass(4_000.0);
    let mut engine = node.engine();
    assert_eq!(last(&engine).ending, Some(Ending::Expired));
    assert_eq!(node.kernel.value(), Some(120));
    // With the disk it recovers by itself.
    node.disk.disk().is_read_only = false;
    engine.step(&well(), node.now);
    assert_eq!(engine.journal_trouble(), None);
    assert_eq!(node.journal()[0].ending, Some(Ending::Expired));
}

/// Half a line behind a failed append was the end of the journal: the next line stood behind it.
#[test]
fn a_failed_line_damages_no_other() {
    let mut node = TestEngine::new(Mode::Manual);
    node.policy.cooldown = Duration::ZERO;
    let mut engine = treated(&node);
    engine.undo(None, Ending::Requested, node.now).unwrap();
    for free in (0..6_000).step_by(59) {
        node.disk.disk().free = free;
        if engine.ask(&by_hand(), &sick(), node.now).is_ok() {
            engine.undo(None, Ending::Requested, node.now).unwrap();
        }
        assert_eq!(node.kernel.value(), Some(120));
        let known = node.journal();
        assert!(known.iter().all(|run| !run.is_active()), "{known:?}");
    }
    node.disk.disk().free = 1 << 20;
    assert!(engine.ask(&by_hand(), &sick(), node.now).is_ok());
    assert!(last(&node.engine()).is_active());
}

#[test]
fn four_thousand_runs_leave_a_journal_and_a_report_of_bounded_size() {
    let mut node = TestEngine::new(Mode::Manual);
    let mut engine = node.engine();
    let path = node.folder.path().join(Journal::FILE);
    let mut longest = 0;
    for _ in 0..4_000 {
        engine.ask(&by_hand(), &sick(), node.now).unwrap();
        engine.undo(None, Ending::Requested, node.now).unwrap();
        node.pass(1.0);
        assert!(engine.runs().len() <= 100);
        longest = longest.max(std::fs::metadata(&path).unwrap().len());
    }
    assert!(longest < 600 << 10, "{longest}");
    assert_eq!(last(&engine).id, 4_000);
    assert!(node.journal().len() < 1_000);
    let report = serde_json::to_string(engine.runs()).unwrap();
    assert!(report.len() < 100 << 10, "{}", report.len());
}

/// The limit of an hour counts them.
#[test]
fn those_of_people_are_forgotten_before_those_of_alerts() {
    let mut node = TestEngine::new(Mode::Alert);
    node.policy.cooldown = Duration::ZERO;
    let mut engine = node.engine();
    let ask = |engine: &mut Engine, node: &mut TestEngine, trigger: Trigger| {
        let ask = Ask {
            trigger,
            ..by_hand()
        };
        engine.ask(&ask, &sick(), node.now).unwrap();
        engine.undo(None, Ending::Requested, node.now).unwrap();
        node.pass(1.0);
    };
    let alert = Trigger::Alert {
        fingerprint: "f".to_owned(),
        starts_at: "t".to_owned(),
        until: None,
    };
    for _ in 0..5 {
        ask(&mut engine, &mut node, alert.clone());
    }
    for _ in 0..200 {
        ask(&mut engine, &mut node, Trigger::Manual { uid: 0 });
    }
    let kept = engine.runs().iter().filter(|it| it.trigger == alert);
    assert_eq!(kept.count(), 5);
    assert_eq!(engine.runs().len(), 100);
    assert_eq!(last(&engine).id, 205);
}

/// Whatever is on the disk after a power failure: no sysctl is set without its line, and no line
/// that was there is lost.
#[test]
fn after_a_power_failure_what_was_set_is_known() {
    let mut node = TestEngine::new(Mode::Manual);
    node.kernel.0.lock().unwrap().marked_on = Some(node.disk.clone());
    let mut engine = node.engine();
    for _ in 0..2 {
        engine.ask(&by_hand(), &sick(), node.now).unwrap();
        node.pass(91.0);
        engine.step(&well(), node.now);
        engine.undo(None, Ending::Requested, node.now).unwrap();
        node.pass(1.0);
    }
    let operations = node.disk.disk().operations.clone();
    let next = TestEngine::new(Mode::Manual);
    let path = next.folder.path().join(Journal::FILE);
    let mut images = 0;
    let mut synced = Vec::new();
    for behind in 2..=operations.len() {
        let is_safe = operations[behind - 1] == Operation::Sync;
        let is_set = matches!(operations[behind - 1], Operation::Mark(60 | 120));
        for image in after_power_failure(&operations[..behind]) {
            std::fs::write(&path, &image).unwrap();
            let found = next.journal();
            // All that was synced is there. At most the line that was under way is beside it.
            assert!(is_after(&found, &synced), "{found:?} {synced:?}");
            if is_set {
                assert!(found.last().is_some_and(Run::is_active), "{found:?}");
            }
            if is_safe {
                synced.clone_from(&found);
            }
            images += 1;
        }
    }
    assert!(images > 4_000, "{images}");
    assert_eq!(synced, node.journal());
    assert!(synced.iter().all(|run| run.state == RunState::Undone));
}

/// Whether all earlier runs are there, each as far as it was or further.
fn is_after(later: &[Run], earlier: &[Run]) -> bool {
    earlier.iter().all(|early| {
        let mut same = later.iter().filter(|late| late.id == early.id);
        same.any(|late| late.state >= early.state)
    })
}

/// The file as a kill leaves it, or a copy that ends anywhere: what is found is undone, and what
/// is not found was not done.
#[test]
fn a_journal_that_is_cut_anywhere_is_undone() {
    let mut node = TestEngine::new(Mode::Manual);
    let mut engine = treated(&node);
    node.pass(91.0);
    engine.step(&well(), node.now);
    let path = node.folder.path().join(Journal::FILE);
    let whole = std::fs::read(&path).unwrap();
    let head = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let next = TestEngine::new(Mode::Manual);
    let path = next.folder.path().join(Journal::FILE);
    for end in head..=whole.len() {
        for padding in [0, 700] {
            let mut text = whole[..end].to_vec();
            text.resize(end + padding, 0);
            std::fs::write(&path, &text).unwrap();
            let found = next.journal();
            let value = if found.is_empty() { 120 } else { 60 };
            next.kernel.set(Some(value));
            let mut engine = next.engine();
            engine.undo(None, Ending::Requested, next.now).unwrap();
            assert_eq!(next.kernel.value(), Some(120), "cut at {end}");
            engine.ask(&by_hand(), &sick(), next.now).unwrap();
            assert_eq!(next.journal().len(), found.len() + 1, "cut at {end}");
        }
    }
}

#[test]
fn a_kill_while_the_journal_is_rewritten_loses_nothing() {
    let node = TestEngine::new(Mode::Manual);
    drop(treated(&node));
    let path = node.folder.path().join(Journal::FILE);
    let new = node.folder.path().join("journal.new");
    let whole = std::fs::read(&path).unwrap();
    for end in (0..whole.len()).step_by(7) {
        std::fs::write(&new, &whole[..end]).unwrap();
        assert!(last(&node.engine()).is_active(), "{end}");
        assert!(!new.exists());
    }
}

/// A journal with an active run that is changed so.
fn changed(change: impl Fn(&mut Run)) -> (TestEngine, Engine, String) {
    let node = TestEngine::new(Mode::Manual);
    let mut engine = treated(&node);
    let mut run = last(&engine).clone();
    change(&mut run);
    let (mut journal, _) = Journal::open(node.folder.path(), |_| Ok(())).unwrap();
    journal.append(&run, &[], Step::Holds, 0.0).unwrap();
    engine = node.engine();
    let path = node.folder.path().join(Journal::FILE);
    let text = std::fs::read_to_string(path).unwrap();
    (node, engine, text)
}

#[test]
fn by_a_run_that_this_agent_cannot_have_begun_nothing_is_written() {
    type Edit = fn(&mut Run);
    let changes: [(Edit, &str); 6] = [
        (
            |run| run.changes[0].key = "../../etc/cron.d/x".to_owned(),
            "never sets \"../../etc/cron.d/x\"",
        ),
        (
            |run| run.changes[0].key = "kernel.core_pattern".to_owned(),
            "kernel.core_pattern",
        ),
        (|run| run.changes[0].to = 39, "to 39"),
        (|run| run.treatment = "speed_up".to_owned(), "speed_up"),
        (|run| run.ailment = "pace".to_owned(), "pace"),
        (
            |run| run.changes.push(Change::new("kernel.panic", 1, 0, 60)),
            "kernel.panic",
        ),
    ];
    for (change, why) in changes {
        let (node, mut engine, text) = changed(change);
        let values = node.kernel.0.lock().unwrap().values.clone();
        let trouble = engine.trouble().expect("it is damage");
        assert!(trouble.contains(why), "{trouble}");
        assert!(trouble.contains("manually"), "{trouble}");
        engine.step(&sick(), node.now);
        let refused = engine.undo(None, Ending::Requested, node.now);
        assert!(matches!(refused, Err(Refusal::Journal(_))), "{refused:?}");
        let refused = engine.ask(&by_hand(), &sick(), node.now);
        assert!(matches!(refused, Err(Refusal::Journal(_))), "{refused:?}");
        assert_eq!(node.kernel.0.lock().unwrap().values, values, "{why}");
        let path = node.folder.path().join(Journal::FILE);
        assert_eq!(std::fs::read_to_string(path).unwrap(), text, "it is left");
    }
}

#[test]
fn beside_a_run_that_is_damage_the_others_are_undone() {
    let (node, mut engine, _) = changed(|run| {
        run.id += 1;
        run.changes[0].key = "kernel.panic".to_owned();
    });
    let undone = engine.undo(None, Ending::Requested, node.now).unwrap();
    assert_eq!(undone.len(), 1);
    assert!(undone[0].why.contains("not recorded"), "{}", undone[0].why);
    assert_eq!(node.kernel.value(), Some(120));
    assert!(engine.undo(None, Ending::Requested, node.now).is_err());
}

/// Of another boot, or over: nothing would be written by them.
#[test]
fn old_runs_of_treatments_that_are_gone_are_no_damage() {
    let changes: [fn(&mut Run); 2] = [
        |run| run.boot = "before".to_owned(),
        |run| run.state = RunState::Undone,
    ];
    for change in changes {
        let (_, engine, _) = changed(|run| {
            run.treatment = "speed_up".to_owned();
            change(run);
        });
        assert_eq!(engine.trouble(), None);
    }
}

#[test]
fn a_state_directory_that_others_may_write_to_lets_nothing_begin() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = TestEngine::new(Mode::Auto);
    drop(treated(&node));
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(node.folder.path(), mode).unwrap();
    let mut engine = node.engine();
    assert!(engine.trouble().unwrap().contains("chmod go-w"));
    engine.step(&sick(), node.now);
    assert_eq!(node.kernel.value(), Some(60), "nothing is written");
}

/// The wall clock is set while an agent runs, or while none does.
#[test]
fn a_wall_clock_that_jumps_ends_and_prolongs_nothing() {
    const YEAR: f64 = 365.0 * 86_400.0;
    for jump in [YEAR, -YEAR, -2e9] {
        for restarted in [false, true] {
            let mut node = TestEngine::new(Mode::Manual);
            let mut engine = treated(&node);
            node.now.unix_seconds += jump;
            if restarted {
                engine = node.engine();
            }
            node.pass(3_000.0);
            engine.step(&well(), node.now);
            assert_eq!(last(&engine).state, RunState::Confirmed, "{jump}");
            node.pass(700.0);
            engine.step(&well(), node.now);
            assert_eq!(last(&engine).ending, Some(Ending::Expired), "{jump}");
            assert_eq!(node.kernel.value(), Some(120), "{jump}");
        }
    }
}

/// Another boot is another count of seconds: the end of a run may lie far ahead in it.
#[test]
fn after_a_reboot_no_time_of_the_last_boot_counts() {
    let mut node = TestEngine::new(Mode::Auto);
    node.now.boot_seconds = 9e6;
    let mut engine = treated(&node);
    node.pass(91.0);
    engine.step(&sick(), node.now);
    assert_eq!(last(&engine).ending, Some(Ending::Ineffective));
    drop(engine);
    node.boot = "the next";
    node.now.boot_seconds = 10.0;
    let mut engine = node.engine();
    // Neither the time for which it is not tried again nor the count of an hour is of this boot.
    engine.step(&sick(), node.now);
    assert_eq!(last(&engine).state, RunState::Applied);
}

#[test]
fn what_was_restored_while_no_agent_ran_stays_so() {
    let mut node = TestEngine::new(Mode::Manual);
    drop(treated(&node));
    node.kernel.set(Some(120));
    let mut engine = node.engine();
    assert_eq!(last(&engine).state, RunState::Undone);
    assert!(last(&engine).why.contains("while no agent ran"));
    node.pass(1.0);
    engine.step(&sick(), node.now);
    assert_eq!(node.kernel.value(), Some(120));
}
