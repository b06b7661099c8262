//! The tree of cgroups, scanned where something happens.
//!
//! Whoever waits in a cgroup waits in each above it too, so a branch whose root has not
//! waited, nor used a CPU, holds nobody who has. It is passed over, and what its cgroups
//! had counted when they were last looked at still holds. A quiet node with thousands of
//! cgroups costs a few reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{CgroupReading, MemoryReading, MemoryWindow, ScanReading, Settings, Stalls, Waits};
use crate::{
    kernel::{
        cgroup::{self, CpuStat, IoStat, MemoryStat, Transfer},
        machine::{self, with_tolerance},
        pressure::{self, Resource, Stall},
    },
    model::Missing,
};

/// What cgroups are asked for: nobody could do anything about the interrupts of one.
const RESOURCES: [Resource; 3] = [Resource::Cpu, Resource::Memory, Resource::Io];

/// Cgroups that a reading names for each thing that they can be first in.
const NAMED: usize = 10;

/// Cgroups without pressure files that are remembered, to tell of them.
const TOLD: usize = 5;

/// Deeper than any tree in use; the scan goes down by recursion.
const DEEPEST: usize = 64;

/// What is known of all cgroups.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    top: Branch,
    /// Cgroups of the tree, the root aside.
    known: usize,
    floor: f64,
    limits: Bounds,
    /// Scans so far.
    scans: u64,
    /// How long the first took: the first window is as much longer for some cgroups.
    first_took: Duration,
    /// Cgroups whose pressure is switched off.
    off: BTreeSet<String>,
    /// Whether the tree is of version 1, where pressure files are rare.
    version_1: bool,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    cgroups: usize,
    time: Duration,
}

/// A cgroup and those below it.
#[derive(Debug, Default)]
struct Branch {
    children: BTreeMap<OsString, Self>,
    /// Whether it was made since the agent began, so that its counters began at zero.
    born: bool,
    /// Whether all its children are known: one that appears later is born.
    listed: bool,
    seen: Seen,
}

/// The counters of a cgroup when it was last looked at.
#[derive(Debug, Default)]
struct Seen {
    stalls: [Option<Stall>; RESOURCES.len()],
    cpu: Option<CpuStat>,
    /// With the number of the scan: only what was read at the window's begin counts.
    memory: Option<(u64, MemoryStat)>,
    io: Option<(u64, IoStat)>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    /// Cgroups that waited or did much, and those above them, by path.
    pub(super) cgroups: Vec<CgroupReading>,
    /// New stalls of every cgroup that had any, and whether they are above the floor.
    pub(super) stalls: Vec<(String, Stalls, bool)>,
    pub(super) reading: ScanReading,
    /// Cgroups with a stall that cannot be true, which is left out.
    pub(super) impossible: Vec<String>,
}

impl Scanned {
    /// The cgroups that waited or ran.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let waited = self.stalls.iter().map(|(path, ..)| path.as_str());
        waited.chain(self.cgroups.iter().map(|it| it.path.as_str()))
    }

    /// With the quotas of another tree, of version 1. A cgroup that is in that tree alone counts for
    /// nothing but its quota: its tasks are in a cgroup of this tree, too.
    pub(super) fn with_quotas(mut self, v1: Self) -> Self {
        let throttled = v1.cgroups.into_iter().filter(|it| it.throttled_periods > 0);
        for quota in throttled {
            let known = self.cgroups.iter().position(|it| it.path == quota.path);
            let place = known.unwrap_or_else(|| {
                self.cgroups.push(CgroupReading {
                    path: quota.path.clone(),
                    ..CgroupReading::default()
                });
                self.cgroups.len() - 1
            });
            let Some(cgroup) = self.cgroups.get_mut(place) else {
                continue;
            };
            cgroup.throttled_seconds = quota.throttled_seconds;
            cgroup.periods = quota.periods;
            cgroup.throttled_periods = quota.throttled_periods;
            cgroup.quota_cpus = quota.quota_cpus;
            cgroup.quota_on_version_1 = true;
        }
        self.reading.complete &= v1.reading.complete;
        self
    }

    /// As of a tree of version 1, where there is no other.
    pub(super) fn of_version_1(mut self) -> Self {
        for cgroup in &mut self.cgroups {
            cgroup.quota_on_version_1 = true;
        }
        self
    }
}

impl Tree {
    /// Looks at all cgroups once.
    pub(super) fn begin(root: PathBuf, settings: &Settings) -> Self {
        Self::new(root, settings, false)
    }

    /// The same of the tree of version 1 that has the CPU controller; `None` where it cannot be
    /// read. Kernels of some clouds have pressure files there.
    pub(super) fn of_version_1(root: PathBuf, settings: &Settings) -> Option<Self> {
        cgroup::children(&root).ok()?;
        Some(Self::new(root, settings, true))
    }

    /// Whether cgroups of this tree have pressure files.
    pub(super) fn has_pressure(&self) -> bool {
        let mut folders = self.top.children.keys().map(|name| self.root.join(name));
        folders.any(|it| it.join(Resource::Cpu.of_cgroup()).exists())
    }

    fn new(root: PathBuf, settings: &Settings, version_1: bool) -> Self {
        let mut tree = Self {
            root,
            top: Branch::default(),
            known: 0,
            floor: settings.floor_ratio,
            limits: Bounds {
                cgroups: settings.max_cgroups as usize,
                time: settings.scan_timeout,
            },
            scans: 0,
            first_took: Duration::ZERO,
            off: BTreeSet::new(),
            version_1,
        };
        let began = Instant::now();
        tree.scan(Duration::ZERO, 1, &Stalls::default(), None);
        tree.first_took = began.elapsed();
        tree
    }

    /// Looks at what has happened since the last scan, in which the node stalled so long; these CPUs
    /// are isolated, where that is known.
    pub(super) fn scan(
        &mut self,
        window: Duration,
        cpus: u32,
        node: &Stalls,
        isolated: Option<&BTreeSet<u32>>,
    ) -> Scanned {
        self.scans += 1;
        let began = Instant::now();
        let late = match self.scans {
            2 => self.first_took,
            _ => Duration::ZERO,
        };
        let mut scan = Scan {
            number: self.scans,
            deadline: began + self.limits.time,
            most: self.limits.cgroups,
            known: self.known,
            floor: window.mul_f64(self.floor),
            longest: node.map(|stall| longest(window, cpus, &stall) + late),
            trace: window.mul_f64(self.floor * self.floor / f64::from(cpus.max(1))),
            off: &mut self.off,
            isolated,
            found: Scanned::default(),
            visited: 0,
            complete: true,
        };
        let mut top = std::mem::take(&mut self.top);
        scan.below(&mut top, &self.root, "", node, 0);
        self.top = top;
        self.known = scan.known;
        let version_1 = self.version_1;
        scan.off
            .retain(|path| !version_1 && cgroup::place(&self.root, path).exists());
        let (visited, complete) = (scan.visited, scan.complete);
        let mut found = scan.found;
        found.cgroups = named(found.cgroups);
        found.reading = ScanReading {
            seconds: began.elapsed().as_secs_f64(),
            visited,
            known: self.known as u64,
            complete,
        };
        found
    }

    /// What is missing because somebody has switched it off.
    pub(super) fn switched_off(&self) -> Option<Missing> {
        let first = self.off.first()?;
        let switch = cgroup::place(&self.root, first).join("cgroup.pressure");
        let what = format!("the pressure of cgroup {first}");
        // From Linux 6.1 on, and not with cgroup_disable=pressure.
        Some(if switch.exists() {
            Missing {
                what,
                why: "it has no pressure files, because PSI is switched off there".to_owned(),
                remedy: format!("echo 1 > {}", switch.display()),
            }
        } else {
            Missing {
                what,
                why: "cgroups have no pressure files on this node".to_owned(),
                remedy:
                    "remove cgroup_disable=pressure from the kernel's command line; until then \
                         nodemedic sees the pressure of the node alone"
                        .to_owned(),
            }
        })
    }
}

/// A scan under way.
struct Scan<'t> {
    number: u64,
    deadline: Instant,
    most: usize,
    known: usize,
    /// Below this a cgroup does not take part in a report.
    floor: Duration,
    /// Who waits for the floor on one CPU leaves at least this in the cgroups above,
    /// whose pressure is the mean of all CPUs, each by the part of the time in which it
    /// was not idle (kernel/sched/psi.c, `collect_percpu_times`): the floor on one of
    /// them, the others busy all the time.
    trace: Duration,
    /// What a cgroup can have waited at the most, by resource.
    longest: [Duration; Resource::ALL.len()],
    off: &'t mut BTreeSet<String>,
    isolated: Option<&'t BTreeSet<u32>>,
    found: Scanned,
    visited: u64,
    complete: bool,
}

impl Scan<'_> {
    const fn is_first(&self) -> bool {
        self.number == 1
    }

    /// Visits the cgroups below one, which stalled so long; their CPU time together.
    fn below(
        &mut self,
        branch: &mut Branch,
        folder: &Path,
        path: &str,
        above: &Stalls,
        depth: usize,
    ) -> Duration {
        self.list(branch, folder);
        let mut used = Duration::ZERO;
        let mut gone = Vec::new();
        for (name, child) in &mut branch.children {
            if depth >= DEEPEST || self.visited >= self.most as u64 || self.is_late() {
                self.complete = false;
                break;
            }
            let (folder, path) = (folder.join(name), format!("{path}/{}", cgroup::shown(name)));
            match self.visit(child, &folder, &path, above, depth + 1) {
                Some(time) => used += time,
                None => gone.push(name.clone()),
            }
        }
        for name in gone {
            self.forget(branch.children.remove(&name));
        }
        used
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Brings the names of the children up to date.
    fn list(&mut self, branch: &mut Branch, folder: &Path) {
        // A cgroup that has gone in between has no children any more.
        let names: BTreeSet<_> = cgroup::children(folder)
            .unwrap_or_default()
            .into_iter()
            .collect();
        let gone: Vec<_> = branch
            .children
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.forget(branch.children.remove(&name));
        }
        let born = branch.listed || branch.born;
        branch.listed = true;
        for name in names {
            if branch.children.contains_key(&name) {
                continue;
            }
            if self.known >= self.most {
                // Nobody knows who is born when some have no place.
                branch.listed = false;
                self.complete = false;
                break;
            }
            self.known += 1;
            let child = Branch {
                born,
                ..Branch::default()
            };
            branch.children.insert(name, child);
        }
    }

    fn forget(&mut self, branch: Option<Branch>) {
        let size = branch.as_ref().map_or(0, Branch::size);
        self.known = self.known.saturating_sub(size);
    }

    /// Looks at a cgroup and, where something happened, at those below it; its CPU time.
    /// `None` if it has gone.
    fn visit(
        &mut self,
        branch: &mut Branch,
        folder: &Path,
        path: &str,
        above: &Stalls,
        depth: usize,
    ) -> Option<Duration> {
        self.visited += 1;
        let cpu = match cgroup::cpu(folder) {
            Ok(cpu) => cpu,
            Err(error) if cgroup::has_gone(&error) => return None,
            Err(_) => CpuStat::default(),
        };
        let before = branch.seen.cpu.replace(cpu);
        let before = before.or(branch.born.then(CpuStat::default));
        let used = before.map_or(Duration::ZERO, |before| {
            cpu.usage.saturating_sub(before.usage)
        });
        let (stalls, known) = self.stalls(branch, folder, path, above);
        let pressed = [Resource::Memory, Resource::Io]
            .into_iter()
            .any(|resource| above[resource as usize].some > self.floor);
        let details = self.is_first() || pressed;

        let mut reading = CgroupReading {
            path: path.to_owned(),
            waits: Waits::new(&stalls),
            cpu_seconds: used.as_secs_f64(),
            ..CgroupReading::default()
        };
        if let Some(before) = before {
            let throttled = cpu.throttled.saturating_sub(before.throttled);
            reading.throttled_seconds = throttled.as_secs_f64();
            reading.periods = cpu.periods.saturating_sub(before.periods);
            reading.throttled_periods = cpu
                .throttled_periods
                .saturating_sub(before.throttled_periods);
        }
        if reading.throttled_periods > 0 {
            reading.quota_cpus = cgroup::quota(folder);
        }
        if stalls[Resource::Cpu as usize].some > self.floor {
            let allowed = cgroup::allowed_cpus(folder);
            let isolated = allowed.as_ref().zip(self.isolated);
            reading.isolated_cpus = isolated.map(|(own, all)| machine::count(&(own & all)));
            reading.allowed_cpus = allowed.as_ref().map(machine::count);
        }
        if details {
            self.details(&mut reading, branch, folder);
        }

        // Who keeps no account of its own pressure may hide some.
        let within = if known { &stalls } else { above };
        let waited = within.iter().any(|stall| stall.some > self.trace);
        let mut own = used;
        if self.is_first() || waited || used > self.floor {
            own = used.saturating_sub(self.below(branch, folder, path, within, depth));
        }
        reading.own_cpu_seconds = own.as_secs_f64();
        self.note(reading, stalls);
        Some(used)
    }

    /// The stalls since the last look, of what the cgroup above has waited for, and
    /// whether the cgroup has them at all.
    fn stalls(
        &mut self,
        branch: &mut Branch,
        folder: &Path,
        path: &str,
        above: &Stalls,
    ) -> (Stalls, bool) {
        let mut stalls = Stalls::default();
        let (mut asked, mut known) = (false, true);
        for (resource, seen) in RESOURCES.into_iter().zip(&mut branch.seen.stalls) {
            let place = resource as usize;
            if !self.is_first() && above[place].some <= self.trace {
                continue;
            }
            asked = true;
            match pressure::read(&folder.join(resource.of_cgroup())) {
                Ok(now) => {
                    let before = seen.replace(now);
                    let before = before.or(branch.born.then(Stall::default));
                    let new = before.map_or_else(Stall::default, |it| now.since(it));
                    if self.number == 1 || new.some <= self.longest[place] {
                        stalls[place] = new;
                    } else if !self.found.impossible.iter().any(|it| it == path) {
                        self.found.impossible.push(path.to_owned());
                    }
                }
                // It may have gone as well; then the scan will see that.
                Err(_) => known = false,
            }
        }
        if known && asked {
            self.off.remove(path);
        } else if !known && self.off.len() < TOLD && folder.exists() {
            self.off.insert(path.to_owned());
        }
        (stalls, known)
    }

    /// What the controllers of memory and I/O say, where the cgroup has them.
    fn details(&self, reading: &mut CgroupReading, branch: &mut Branch, folder: &Path) {
        let at_begin = |scan: u64| scan + 1 == self.number;
        if let Ok(now) = cgroup::memory(folder) {
            let before = branch.seen.memory.replace((self.number, now));
            let before = before.filter(|(scan, _)| at_begin(*scan));
            let before = before.map(|(_, stat)| stat);
            let before = before.or(branch.born.then(MemoryStat::default));
            reading.memory = Some(MemoryReading {
                current: now.current,
                high: now.high,
                max: now.max,
                dirty: now.dirty,
                inactive_file: now.inactive_file,
                window: before.map(|before| since(now, before)),
            });
        }
        if let Ok(now) = cgroup::io(folder) {
            let before = branch.seen.io.replace((self.number, now.clone()));
            let before = before.filter(|(scan, _)| at_begin(*scan));
            let before = before.map(|(_, stat)| stat);
            let Some(before) = before.or(branch.born.then(IoStat::default)) else {
                return;
            };
            let device = |(device, now): (String, Transfer<u64>)| {
                let before = before.get(&device).copied().unwrap_or_default();
                let moved = Transfer {
                    read_bytes: now.read_bytes.saturating_sub(before.read_bytes),
                    written_bytes: now.written_bytes.saturating_sub(before.written_bytes),
                    reads: now.reads.saturating_sub(before.reads),
                    writes: now.writes.saturating_sub(before.writes),
                };
                (moved.reads + moved.writes > 0).then_some((device, moved))
            };
            reading.io_max = cgroup::io_max(folder);
            reading.io = now.into_iter().filter_map(device).collect();
        }
    }

    fn note(&mut self, reading: CgroupReading, stalls: Stalls) {
        let much = stalls.iter().any(|stall| stall.some > self.floor);
        if stalls.iter().any(|stall| !stall.some.is_zero()) {
            self.found.stalls.push((reading.path.clone(), stalls, much));
        }
        let did = reading.own_cpu_seconds > self.floor.as_secs_f64()
            || reading.throttled_periods > 0
            || reading.memory.is_some()
            || !reading.io.is_empty();
        if !self.is_first() && (much || did) {
            self.found.cgroups.push(reading);
        }
    }
}

/// What a cgroup can have waited in a window at the most. The node's stall is the mean of its CPUs,
/// each by the part of the time in which it was not idle (kernel/sched/psi.c,
/// `collect_percpu_times`). A cgroup that waits for a time on one CPU leaves it not idle for as
/// long, and so at least the square of its part of the window in the node, the others being busy
/// all the time: its own stall may be many times the node's.
///
/// Kernels up to 6.8 and later count 2^32 ns for a cgroup that is just born (bug 219194).
fn longest(window: Duration, cpus: u32, node: &Stall) -> Duration {
    let square = node.some.as_secs_f64() * f64::from(cpus.max(1)) * window.as_secs_f64();
    with_tolerance(window.min(Duration::from_secs_f64(square.sqrt())))
}

impl Branch {
    fn size(&self) -> usize {
        1 + self.children.values().map(Self::size).sum::<usize>()
    }
}

fn since(now: MemoryStat, before: MemoryStat) -> MemoryWindow {
    MemoryWindow {
        high_events: now.high_events.saturating_sub(before.high_events),
        max_events: now.max_events.saturating_sub(before.max_events),
        oom_events: now.oom_events.saturating_sub(before.oom_events),
        faults: now.faults.saturating_sub(before.faults),
        refaults: now.refaults.saturating_sub(before.refaults),
        reclaimed: now.reclaimed.saturating_sub(before.reclaimed),
        scanned: now.scanned.saturating_sub(before.scanned),
    }
}

/// Those that are among the first in anything, with those above them, by path.
fn named(all: Vec<CgroupReading>) -> Vec<CgroupReading> {
    let measures: [fn(&CgroupReading) -> f64; 9] = [
        |it| it.waits.cpu.some,
        |it| it.waits.memory.some,
        |it| it.waits.io.some,
        |it| it.throttled_seconds,
        |it| it.own_cpu_seconds,
        |it| it.limit_events() as f64,
        |it| it.allocated() as f64,
        |it| it.io_bytes() as f64,
        |it| it.memory.map_or(0.0, |memory| memory.dirty as f64),
    ];
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for measure in measures {
        let mut first: Vec<_> = all
            .iter()
            .map(|it| (measure(it), it))
            .filter(|(value, _)| *value > 0.0)
            .collect();
        first.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        kept.extend(first.iter().take(NAMED).map(|(_, it)| it.path.clone()));
    }
    let above: Vec<_> = kept
        .iter()
        .flat_map(|path| ancestors(path))
        .map(str::to_owned)
        .collect();
    kept.extend(above);
    let mut named: Vec<_> = all
        .into_iter()
        .filter(|it| kept.contains(&it.path))
        .collect();
    named.sort_by(|a, b| a.path.cmp(&b.path));
    named
}

/// The cgroups above one, the nearest first, without the root.
pub(in crate::ailments::psi_stall) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut path = path;
    std::iter::from_fn(move || {
        path = &path[..path.rfind('/')?];
        (!path.is_empty()).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::ffi::OsStringExt as _};

    use super::*;

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
        let scanned = scanner.scan(WINDOW, 2, &waited(MS(2_000)), None);
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
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(500)), None);
        assert_eq!(scanned.reading.visited, 1);
        tree.set("quiet", MS(300), ZERO);
        tree.set("quiet/7", MS(300), ZERO);
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(500)), None);
        assert_eq!(scanned.reading.visited, 51);
        assert_eq!(waits(&scanned), [("/quiet", 0.3), ("/quiet/7", 0.3)]);
    }

    #[test]
    fn a_cgroup_that_is_new_counts_from_its_birth_and_one_that_was_not_reached_does_not() {
        let tree = Fake::new();
        tree.set("old", MS(5_000), ZERO);
        let mut scanner = tree.begin();
        tree.set("young", MS(400), ZERO);
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(400)), None);
        assert_eq!(waits(&scanned), [("/young", 0.4)]);

        let settings = Settings {
            max_cgroups: 1,
            ..Settings::default()
        };
        tree.set("zebra", MS(9_000), ZERO);
        let mut scanner = tree.begin_with(&settings);
        assert_eq!(scanner.known, 1);
        scanner.limits.cgroups = 10;
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(400)), None);
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
        let scanned = scanner.scan(WINDOW, 1, &waited(ZERO), None);
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
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(900)), None);
        assert_eq!(scanned.reading.known, 0);
        // In the middle of being removed: the folder is there, its files are not.
        fs::create_dir(tree.folder.path().join("ghost")).expect("made");
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(900)), None);
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
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(900)), None);
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
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(700)), None);
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
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(800)), None);
        assert_eq!(waits(&scanned), [("/off/below", 0.8)]);
        tree.set("off", MS(800), ZERO);
        scanner.scan(WINDOW, 1, &waited(MS(800)), None);
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
        let scanned = scanner.scan(WINDOW, 2, &waited(MS(100)), None);
        assert_eq!(waits(&scanned), [("/old", 1.3)]);
        assert_eq!(scanned.impossible, ["/born"]);
        // From now on it counts.
        tree.set("born", MS(4_795), MS(100));
        let scanned = scanner.scan(WINDOW, 2, &waited(MS(100)), None);
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
        scanner.limits.time = ZERO;
        let scanned = scanner.scan(WINDOW, 1, &waited(MS(800)), None);
        assert!(!scanned.reading.complete);
        assert_eq!(scanned.reading.known, 20);
    }

    #[test]
    fn a_report_names_the_first_in_each_thing_and_no_more() {
        let cgroup = |i: u32| CgroupReading {
            path: format!("/pods/{i}"),
            own_cpu_seconds: f64::from(i),
            ..CgroupReading::default()
        };
        let parent = CgroupReading {
            path: "/pods".to_owned(),
            ..CgroupReading::default()
        };
        let all = (0..100).map(cgroup).chain([parent]).collect();
        let named = named(all);
        assert_eq!(named.len(), NAMED + 1);
        assert_eq!(named[0].path, "/pods");
        assert!(named.iter().any(|it| it.path == "/pods/99"));
    }

    #[test]
    fn ancestors_are_named_from_below() {
        let above: Vec<_> = ancestors("/a/b/c").collect();
        assert_eq!(above, ["/a/b", "/a"]);
        assert_eq!(ancestors("/a").count(), 0);
    }
}
