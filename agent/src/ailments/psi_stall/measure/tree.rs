//! The tree of cgroups, scanned where something happens.
//!
//! Whoever waits in a cgroup waits in each above it too, so a branch whose root has not
//! waited, nor used a CPU, holds nobody who has. It is passed over, and what its cgroups
//! had counted when they were last looked at still holds. A quiet node with thousands of
//! cgroups costs a few reads.
//!
//! Where many are active, a scan ends when its share of CPU time is used up, and the next goes on
//! there. Those that readings have named are read first, and while something stalls, then those
//! that wait and run most. What a cgroup did is known from its own
//! two readings: where these are further apart than the window, its figures say so, nobody is
//! blamed by them, and the next scan reads it first.

mod allowance;
mod counted;
mod first;
mod scan;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use self::{
    allowance::{Allowance, Purpose},
    counted::{Counted, Quiet},
    first::First,
    scan::{Part, Scan},
};
use super::{CgroupReading, ScanReading, Settings, Stalls, named::named};
use crate::{
    kernel::{
        cgroup::{self, Buffers, CpuStat, Folder, IoStat, MemoryStat},
        machine::with_tolerance,
        pressure::{Resource, Stall},
    },
    model::Missing,
    text::shell_word,
};

/// What cgroups are asked for: nobody could do anything about the interrupts of one.
const RESOURCES: [Resource; 3] = [Resource::Cpu, Resource::Memory, Resource::Io];

/// The place of CPU time, after those of [`RESOURCES`].
const CPU: usize = RESOURCES.len();

/// Cgroups without pressure files that are remembered, to tell of them.
const TOLD: usize = 5;

/// Deeper than any tree in use; the scan goes down by recursion.
const DEEPEST: usize = 64;

/// What is known of the CPUs that a cgroup may use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuSets<'t> {
    /// CPUs that the kernel does not balance tasks over, where it tells.
    pub(super) isolated: Option<&'t BTreeSet<u32>>,
    /// The part of the window for which each CPU was idle, where that is known.
    pub(super) idle: Option<&'t BTreeMap<u32, f64>>,
}

impl CpuSets<'_> {
    /// The part of the window for which these CPUs were idle, on average.
    fn idle_of(&self, cpus: &BTreeSet<u32>) -> Option<f64> {
        let all = self.idle?;
        let each: Vec<_> = cpus.iter().filter_map(|cpu| all.get(cpu)).collect();
        (!each.is_empty()).then(|| each.iter().copied().sum::<f64>() / each.len() as f64)
    }
}

/// What is known of all cgroups.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    top: Branch,
    /// Cgroups of the tree, the root aside.
    known: usize,
    floor: f64,
    /// The shares of a window from which on waits are findings, in the order of [`RESOURCES`].
    limits: [f64; RESOURCES.len()],
    bounds: Bounds,
    allowance: Allowance,
    /// The CPU time of this thread.
    clock: fn() -> Duration,
    /// Scans so far.
    scans: u64,
    /// The time of the last, since the first.
    now: Duration,
    /// How long the first took: the first window is as much longer for some cgroups.
    first_took: Duration,
    /// Whether all cgroups have been read once.
    begun: bool,
    /// Where the last scan ended, if that was before its end.
    cut: Vec<OsString>,
    first: First,
    /// Cgroups whose pressure is switched off.
    off: BTreeSet<String>,
    /// Whether the tree is of version 1, where pressure files are rare.
    version_1: bool,
    buffers: Buffers,
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
    /// By which the kernel's programs know it.
    id: u64,
    /// It was made after this time.
    born: Option<Duration>,
    /// When all its children were known, with the number of the scan: one that appears later is
    /// born since.
    listed: Option<(Duration, u64)>,
    /// The scan that listed it last, and the one that read it last, with its place in that.
    listing: u64,
    scan: u64,
    visit: usize,
    stalls: [Option<Counted<Stall>>; RESOURCES.len()],
    cpu: Option<Counted<CpuStat>>,
    /// Only what was read at the window's begin counts.
    memory: Option<Counted<MemoryStat>>,
    io: Option<Counted<IoStat>>,
    /// Since when nobody below can have waited, or run.
    quiet: [Quiet; CPU + 1],
    /// Whether it has not run since its memory was read, and nothing waited to be written.
    is_idle: bool,
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
    /// With the quotas of another tree, of version 1. A cgroup that is in that tree alone counts for
    /// nothing but its quota: its tasks are in a cgroup of this tree, too.
    pub(super) fn with_quotas(mut self, v1: Self) -> Self {
        let throttled = v1.cgroups.into_iter();
        let throttled = throttled.filter(|it| it.throttled_periods > 0 && !it.is_older());
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
        let (own, v1) = (&mut self.reading, v1.reading);
        own.complete &= v1.complete;
        own.unread += v1.unread;
        own.may_stall = own.may_stall.zip(v1.may_stall).map(|(own, v1)| own || v1);
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
        Folder::open(&root).ok()?;
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
            limits: [settings.cpu_ratio, settings.memory_ratio, settings.io_ratio],
            bounds: Bounds {
                cgroups: settings.max_cgroups as usize,
                time: settings.scan_timeout,
            },
            allowance: Allowance::new(settings.scan_cpu_ratio),
            clock: thread_time,
            scans: 0,
            now: Duration::ZERO,
            first_took: Duration::ZERO,
            begun: false,
            cut: Vec::new(),
            first: First::default(),
            off: BTreeSet::new(),
            version_1,
            buffers: Buffers::default(),
        };
        let began = Instant::now();
        tree.scan(Duration::ZERO, 1, &Stalls::default(), CpuSets::default());
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
        sets: CpuSets<'_>,
    ) -> Scanned {
        self.scans += 1;
        let (began, cpu_began) = (Instant::now(), (self.clock)());
        let previous = self.now;
        self.now += window;
        self.allowance.earn(window);
        let late = match self.scans {
            2 => self.first_took,
            _ => Duration::ZERO,
        };
        let limits = self.limits.map(|limit| window.mul_f64(limit));
        let mut scan = Scan {
            number: self.scans,
            all: !self.begun,
            now: self.now,
            previous,
            window,
            cpus,
            clock: self.clock,
            until: Duration::MAX,
            deadline: began + self.bounds.time,
            details_until: began + self.bounds.time / 2,
            most: self.bounds.cgroups,
            known: self.known,
            floor: window.mul_f64(self.floor),
            longest: node.map(|stall| longest(window, cpus, &stall) + late),
            trace: window.mul_f64(self.floor * self.floor / f64::from(cpus.max(1))),
            limits,
            off: &mut self.off,
            sets,
            version_1: self.version_1,
            buffers: &mut self.buffers,
            visits: Vec::new(),
            impossible: Vec::new(),
            looks: 0,
            late: false,
            unread: 0,
            may_stall: false,
        };
        let begins = scan.all;
        let mut urgent = scan.begin(&mut self.top, node);
        let until = |to: Purpose| {
            cpu_began.saturating_add(match begins {
                // Nothing can be told before all have been read once.
                true => self.bounds.time,
                false => self.allowance.available(to),
            })
        };
        match Folder::open(&self.root) {
            Ok(folder) => {
                scan.list(&mut self.top, &folder);
                scan.take_until(until(Purpose::Follow));
                scan.follow(&mut self.top, &folder, &self.first.paths());
                urgent |= scan.has_stalled();
                let from = std::mem::take(&mut self.cut);
                let rest = match urgent {
                    true => Purpose::Hunt,
                    false => Purpose::Sweep,
                };
                scan.take_until(until(rest));
                if urgent && !begins {
                    scan.hunt(&mut self.top, &folder, 0, &from, 0);
                }
                let mut cut = scan.sweep(&mut self.top, &folder, 0, Part::From(&from), 0);
                if cut.is_none() {
                    // The scans before have read the other part.
                    self.begun = true;
                    scan.all = false;
                }
                if cut.is_none() && !from.is_empty() {
                    cut = scan.sweep(&mut self.top, &folder, 0, Part::Until(&from), 0);
                }
                self.cut = cut.unwrap_or_default();
                scan.settle(&mut self.top, 0);
            }
            Err(_) => scan.lose_one(),
        }
        self.known = scan.known;
        let (visited, unread, may_stall) = (scan.visits.len() - 1, scan.unread, scan.may_stall);
        let mut found = scan.results();
        let version_1 = self.version_1;
        self.off
            .retain(|path| !version_1 && cgroup::place(&self.root, path).exists());
        let (cgroups, order) = named(found.cgroups);
        self.first
            .name(self.scans, order.iter().map(String::as_str));
        found.cgroups = cgroups;
        if !begins {
            let took = (self.clock)().saturating_sub(cpu_began);
            self.allowance.spend(took);
        }
        found.reading = ScanReading {
            seconds: began.elapsed().as_secs_f64(),
            visited: visited as u64,
            known: self.known as u64,
            complete: unread == 0,
            unread,
            may_stall: Some(may_stall),
        };
        found
    }

    /// Has the next scan read these first.
    pub(super) fn prefer<'p>(&mut self, paths: impl Iterator<Item = &'p str>) {
        self.first.name(self.scans, paths);
    }

    /// The paths of the cgroups with these ids, as far as they are known; `/` for the root.
    pub(super) fn find(&self, ids: &HashSet<u64>) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        if !ids.is_empty() {
            self.top.find(ids, "", &mut found);
        }
        let root = fs::metadata(&self.root).map(|it| it.ino());
        found.extend(
            root.ok()
                .filter(|id| ids.contains(id))
                .map(|id| (id, "/".to_owned())),
        );
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
                remedy: format!("echo 1 > {}", shell_word(&switch.display().to_string())),
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

/// What a cgroup can have waited in a window at the most. The node's stall is the mean of its CPUs,
/// each by the part of the time in which it was not idle (kernel/sched/psi.c,
/// `collect_percpu_times`). A cgroup that waits for a time on one CPU leaves it not idle for as
/// long, and so at least the square of its part of the window in the node, the others being busy
/// all the time: its own stall may be many times the node's. The same holds of any cgroup above it.
fn at_most(window: Duration, cpus: u32, above: &Stall) -> Duration {
    let square = above.some.as_secs_f64() * f64::from(cpus.max(1)) * window.as_secs_f64();
    window.min(Duration::from_secs_f64(square.sqrt()))
}

/// The same, as far as clocks agree. Kernels up to 6.8 and later count 2^32 ns for a cgroup that is
/// just born (bug 219194).
fn longest(window: Duration, cpus: u32, node: &Stall) -> Duration {
    with_tolerance(at_most(window, cpus, node))
}

/// CPU time of this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Branch {
    /// One that appeared in this scan; where it is known since when it can be there, its counters
    /// began at zero then.
    fn new(id: u64, born: Option<Duration>, listing: u64) -> Self {
        let zero = |at| Counted::new(Stall::default(), at);
        Self {
            id,
            born,
            listing,
            stalls: [born.map(zero); RESOURCES.len()],
            cpu: born.map(|at| Counted::new(CpuStat::default(), at)),
            memory: born.map(|at| Counted::new(MemoryStat::default(), at)),
            io: born.map(|at| Counted::new(IoStat::default(), at)),
            ..Self::default()
        }
    }

    fn find(&self, ids: &HashSet<u64>, path: &str, found: &mut Vec<(u64, String)>) {
        for (name, child) in &self.children {
            let is_wanted = ids.contains(&child.id);
            if !is_wanted && child.children.is_empty() {
                continue;
            }
            let path = format!("{path}/{}", cgroup::shown(name));
            child.find(ids, &path, found);
            if is_wanted {
                found.push((child.id, path));
            }
        }
    }

    fn size(&self) -> usize {
        1 + self.children.values().map(Self::size).sum::<usize>()
    }

    /// Brings its counters up to the time until which those of the cgroup above were quiet.
    fn carry(&mut self, above: &[Quiet; CPU + 1]) {
        for ((own, quiet), above) in self.stalls.iter_mut().zip(&mut self.quiet).zip(above) {
            if let Some(own) = own {
                let before = own.at;
                above.carry(own);
                quiet.follow(before, own);
            }
        }
        if let Some(own) = &mut self.cpu {
            let before = own.at;
            above[CPU].carry(own);
            self.quiet[CPU].follow(before, own);
        }
    }

    /// Takes its CPU time as read now: in the window it used this much at the most.
    fn take_as_read(
        &mut self,
        above: &[Quiet; CPU + 1],
        previous: Duration,
        now: Duration,
        most: Duration,
    ) {
        self.carry(above);
        if let Some(own) = self.cpu.as_mut().filter(|own| own.at >= previous) {
            self.quiet[CPU].rest(own.at, now, most);
            own.at = now;
            own.slack += most;
        }
    }
}

#[cfg(test)]
mod tests;
