//! Trees of cgroups made of ordinary files.

mod share;

use std::{fs, os::unix::ffi::OsStringExt as _};

use super::*;
use crate::ailments::psi_stall::measure::ancestors;

/// A tree of cgroups made of ordinary files.
struct Fake {
    folder: tempfile::TempDir,
}

impl Fake {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Sets what a cgroup has waited for CPUs, and run, in all.
    fn set(&self, path: &str, waited: Duration, ran: Duration) {
        let folder = self.folder.path().join(path);
        fs::create_dir_all(&folder).expect("made");
        let total = waited.as_micros();
        let stall = format!("some avg10=0.00 total={total}\nfull avg10=0.00 total=0\n");
        let none = "some avg10=0.00 total=0\nfull avg10=0.00 total=0\n";
        let usage = format!("usage_usec {}\n", ran.as_micros());
        for (file, text) in [
            ("cpu.pressure", stall.as_str()),
            ("memory.pressure", none),
            ("io.pressure", none),
            ("cpu.stat", usage.as_str()),
        ] {
            fs::write(folder.join(file), text).expect("written");
        }
    }

    fn begin(&self) -> Tree {
        self.begin_with(&Settings::default())
    }

    fn begin_with(&self, settings: &Settings) -> Tree {
        self.begin_with_share(&Settings {
            scan_cpu_ratio: 1.0,
            ..settings.clone()
        })
    }

    /// With the share of CPU time that these settings have.
    fn begin_with_share(&self, settings: &Settings) -> Tree {
        let settings = Settings {
            // However slow the machine.
            scan_timeout: Duration::from_secs(300),
            ..settings.clone()
        };
        Tree::begin(self.folder.path().to_owned(), &settings)
    }
}

const WINDOW: Duration = Duration::from_secs(10);
const ZERO: Duration = Duration::ZERO;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn waited(some: Duration) -> Stalls {
    let mut stalls = Stalls::default();
    stalls[Resource::Cpu as usize].some = some;
    stalls
}

fn waits(scanned: &Scanned) -> Vec<(&str, f64)> {
    let cgroups = scanned.cgroups.iter();
    cgroups
        .map(|it| (it.path.as_str(), it.waits.cpu.some))
        .collect()
}

#[test]
fn who_waits_is_found_with_those_above_and_who_does_not_is_left_out() {
    let tree = Fake::new();
    tree.set("pods", MS(100), ZERO);
    tree.set("pods/a", MS(100), ZERO);
    tree.set("pods/b", MS(7), ZERO);
    let mut scanner = tree.begin();
    tree.set("pods", MS(2_100), ZERO);
    tree.set("pods/a", MS(2_100), ZERO);
    let scanned = scanner.scan(WINDOW, 2, &waited(MS(2_000)), CpuSets::default());
    assert_eq!(waits(&scanned), [("/pods", 2.0), ("/pods/a", 2.0)]);
    assert_eq!(scanned.reading.known, 3);
    assert!(scanned.reading.complete);
}

#[test]
fn a_quiet_branch_is_passed_over_and_loses_nothing() {
    let tree = Fake::new();
    tree.set("quiet", ZERO, ZERO);
    for i in 0..50 {
        tree.set(&format!("quiet/{i}"), ZERO, ZERO);
    }
    let mut scanner = tree.begin();
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(500)), CpuSets::default());
    assert_eq!(scanned.reading.visited, 1);
    tree.set("quiet", MS(300), ZERO);
    tree.set("quiet/7", MS(300), ZERO);
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(500)), CpuSets::default());
    assert_eq!(scanned.reading.visited, 51);
    assert_eq!(waits(&scanned), [("/quiet", 0.3), ("/quiet/7", 0.3)]);
}

#[test]
fn a_cgroup_that_is_new_counts_from_its_birth_and_one_that_was_not_reached_does_not() {
    let tree = Fake::new();
    tree.set("old", MS(5_000), ZERO);
    let mut scanner = tree.begin();
    tree.set("young", MS(400), ZERO);
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(400)), CpuSets::default());
    assert_eq!(waits(&scanned), [("/young", 0.4)]);

    let settings = Settings {
        max_cgroups: 1,
        ..Settings::default()
    };
    tree.set("zebra", MS(9_000), ZERO);
    let mut scanner = tree.begin_with(&settings);
    assert_eq!(scanner.known, 1);
    scanner.bounds.cgroups = 10;
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(400)), CpuSets::default());
    assert_eq!(waits(&scanned), [], "nobody knows when zebra has waited");
}

#[test]
fn cpu_time_is_that_of_the_cgroup_below() {
    let tree = Fake::new();
    tree.set("pods", ZERO, ZERO);
    tree.set("pods/a", ZERO, ZERO);
    let mut scanner = tree.begin();
    tree.set("pods", ZERO, MS(3_000));
    tree.set("pods/a", ZERO, MS(2_000));
    let scanned = scanner.scan(WINDOW, 1, &waited(ZERO), CpuSets::default());
    let own: Vec<_> = scanned
        .cgroups
        .iter()
        .map(|it| (it.path.as_str(), it.own_cpu_seconds))
        .collect();
    assert_eq!(own, [("/pods", 1.0), ("/pods/a", 2.0)]);
}

#[test]
fn cgroups_that_vanish_are_forgotten() {
    let tree = Fake::new();
    tree.set("pods", ZERO, ZERO);
    tree.set("pods/a", ZERO, ZERO);
    let mut scanner = tree.begin();
    fs::remove_dir_all(tree.folder.path().join("pods")).expect("removed");
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(900)), CpuSets::default());
    assert_eq!(scanned.reading.known, 0);
    // In the middle of being removed: the folder is there, its files are not.
    fs::create_dir(tree.folder.path().join("ghost")).expect("made");
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(900)), CpuSets::default());
    assert_eq!((scanned.reading.known, waits(&scanned)), (0, Vec::new()));
}

#[test]
fn garbage_is_no_stall_and_no_panic() {
    let tree = Fake::new();
    tree.set("bad", MS(100), ZERO);
    let mut scanner = tree.begin();
    for file in ["cpu.pressure", "cpu.stat", "memory.stat", "io.stat"] {
        let path = tree.folder.path().join("bad").join(file);
        fs::write(path, [0xff, 0, b'\n', b'x']).expect("written");
    }
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(900)), CpuSets::default());
    assert_eq!(waits(&scanned), []);
}

/// A name is any bytes: it must neither vanish nor end the agent.
#[test]
fn a_cgroup_of_which_the_name_is_no_text_is_found_too() {
    let tree = Fake::new();
    let name = OsString::from_vec(b"caf\xe9\x1b".to_vec());
    tree.set("text", ZERO, ZERO);
    let made = tree.folder.path().join(&name);
    fs::rename(tree.folder.path().join("text"), &made).expect("renamed");
    let mut scanner = tree.begin();
    tree.set("text", MS(700), ZERO);
    for file in ["cpu.pressure", "cpu.stat"] {
        let from = tree.folder.path().join("text").join(file);
        fs::rename(from, made.join(file)).expect("renamed");
    }
    fs::remove_dir_all(tree.folder.path().join("text")).expect("removed");
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(700)), CpuSets::default());
    assert_eq!(waits(&scanned), [(r"/caf\xe9\x1b", 0.7)]);
    assert_eq!(scanner.known, 1);
}

#[test]
fn a_cgroup_without_pressure_is_told_with_its_remedy_until_it_has_some() {
    let tree = Fake::new();
    tree.set("off", ZERO, ZERO);
    tree.set("off/below", ZERO, ZERO);
    let pressure = tree.folder.path().join("off/cpu.pressure");
    fs::remove_file(&pressure).expect("removed");
    let mut scanner = tree.begin();
    // No remedy names a file that is not there.
    let missing = scanner.switched_off().expect("it is reported");
    assert!(missing.remedy.contains("cgroup_disable"), "{missing:?}");
    fs::write(tree.folder.path().join("off/cgroup.pressure"), "0").expect("written");
    let missing = scanner.switched_off().expect("it is reported");
    assert!(
        missing.remedy.ends_with("/off/cgroup.pressure"),
        "{missing:?}"
    );
    // What waits below is found all the same.
    tree.set("off/below", MS(800), ZERO);
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(800)), CpuSets::default());
    assert_eq!(waits(&scanned), [("/off", 0.0), ("/off/below", 0.8)]);
    tree.set("off", MS(800), ZERO);
    scanner.scan(WINDOW, 1, &waited(MS(800)), CpuSets::default());
    assert_eq!(scanner.switched_off(), None);
}

/// 2^32 ns for a cgroup that is a second old (buildbuddy#7288).
#[test]
fn more_stall_than_there_was_time_is_left_out() {
    let tree = Fake::new();
    tree.set("old", ZERO, ZERO);
    let mut scanner = tree.begin();
    tree.set("born", MS(4_295), MS(100));
    tree.set("old", MS(1_300), ZERO);
    // On one of two CPUs a cgroup waits for much longer than the node.
    let scanned = scanner.scan(WINDOW, 2, &waited(MS(100)), CpuSets::default());
    assert_eq!(waits(&scanned), [("/old", 1.3)]);
    assert_eq!(scanned.impossible, ["/born"]);
    // From now on it counts.
    tree.set("born", MS(4_795), MS(100));
    let scanned = scanner.scan(WINDOW, 2, &waited(MS(100)), CpuSets::default());
    assert_eq!(waits(&scanned), [("/born", 0.5)]);
    assert!(scanned.impossible.is_empty());
}

#[test]
fn a_scan_that_is_cut_says_so() {
    let tree = Fake::new();
    for i in 0..20 {
        tree.set(&format!("{i}"), ZERO, ZERO);
    }
    let mut scanner = tree.begin();
    scanner.bounds.time = ZERO;
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(800)), CpuSets::default());
    assert!(!scanned.reading.complete);
    assert_eq!(scanned.reading.known, 20);
}

#[test]
fn a_cgroup_is_known_by_its_id_though_no_scan_reads_it() {
    use std::os::unix::fs::MetadataExt as _;

    let tree = Fake::new();
    tree.set("pods", ZERO, ZERO);
    tree.set("pods/a", ZERO, ZERO);
    let scanner = tree.begin();
    let id = |path: &str| {
        let folder = tree.folder.path().join(path);
        fs::metadata(folder).expect("it is there").ino()
    };
    let mut found = scanner.find(&[id(""), id("pods/a"), id("pods"), u64::MAX].into());
    found.sort();
    let mut ids = [
        (id(""), "/".to_owned()),
        (id("pods"), "/pods".to_owned()),
        (id("pods/a"), "/pods/a".to_owned()),
    ];
    ids.sort();
    assert_eq!(found, ids);
    assert_eq!(scanner.find(&HashSet::new()), []);
}

/// What was hidden by small waits above adds up: a wait that may be of before the window is no
/// finding, and is not healthy either.
#[test]
fn a_wait_that_may_be_of_before_the_window_is_unknown() {
    let tree = Fake::new();
    tree.set("pods", ZERO, ZERO);
    tree.set("pods/a", ZERO, ZERO);
    let mut scanner = tree.begin();
    for i in 1..=100 {
        // Less than the trace that a wait of the floor leaves.
        tree.set("pods", Duration::from_micros(900 * i), ZERO);
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(2)), CpuSets::default());
        assert_eq!(scanned.reading.visited, 1);
        assert!(scanned.reading.complete);
    }
    for (i, known) in [(1, false), (2, true)] {
        tree.set("pods", MS(90 + i * 6_000), ZERO);
        tree.set("pods/a", MS(i * 6_000), ZERO);
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(6_000)), CpuSets::default());
        let found = waits(&scanned).contains(&("/pods/a", 6.0));
        assert_eq!((found, scanned.reading.may_stall), (known, Some(!known)));
    }
}

/// Without a first reading of its own a cgroup could not be judged in the first window of a stall.
#[test]
fn what_the_first_scan_did_not_reach_is_read_while_all_is_quiet() {
    let tree = Fake::new();
    tree.set("pods", MS(50_000), ZERO);
    tree.set("pods/a", MS(50_000), ZERO);
    let settings = Settings {
        scan_timeout: ZERO,
        scan_cpu_ratio: 1.0,
        ..Settings::default()
    };
    let mut scanner = Tree::begin(tree.folder.path().to_owned(), &settings);
    scanner.bounds.time = Duration::from_secs(300);
    scanner.scan(WINDOW, 1, &waited(ZERO), CpuSets::default());
    tree.set("pods", MS(58_000), ZERO);
    tree.set("pods/a", MS(58_000), ZERO);
    let scanned = scanner.scan(WINDOW, 1, &waited(MS(8_000)), CpuSets::default());
    assert_eq!(waits(&scanned), [("/pods", 8.0), ("/pods/a", 8.0)]);
    assert!(scanned.reading.complete);
}
