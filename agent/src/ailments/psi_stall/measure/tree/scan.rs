//! One scan of the tree.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    ops::Bound,
    time::{Duration, Instant},
};

use super::{
    Branch, CPU, CpuSets, DEEPEST, RESOURCES, Scanned, TOLD, at_most,
    counted::{Counted, Quiet},
    first,
};
use crate::{
    ailments::psi_stall::measure::{CgroupReading, MemoryReading, MemoryWindow, Stalls, Waits},
    kernel::{
        cgroup::{self, Buffers, Files, Folder, MemoryStat, Transfer},
        machine::{self, with_tolerance},
        pressure::{Resource, Stall},
    },
};

/// Cgroups that are read between two looks at the clock, which is a system call.
const BETWEEN_LOOKS: u64 = 4;

/// Cgroups that are read again however little time there is: a report has to go on naming whom it
/// named. With those above them they take a millisecond.
const ALWAYS: usize = 16;

/// Cgroups of one level below which those who stall are looked for.
const HUNTED: usize = 8;

/// A folder with more cgroups is listed anew in each third scan, while their number stays.
const MANY: usize = 500;
const LISTED_FOR: u64 = 3;

/// A scan under way.
pub(super) struct Scan<'t> {
    pub(super) number: u64,
    /// Whether not all cgroups have been read once: then each has to be, whatever those above it did.
    pub(super) all: bool,
    /// Now and at the scan before: times of readings.
    pub(super) now: Duration,
    pub(super) previous: Duration,
    pub(super) window: Duration,
    pub(super) cpus: u32,
    pub(super) clock: fn() -> Duration,
    /// When the CPU time of this scan is used up, by that clock.
    pub(super) until: Duration,
    /// When its time is.
    pub(super) deadline: Instant,
    /// When the first scan reads no more details.
    pub(super) details_until: Instant,
    pub(super) most: usize,
    pub(super) known: usize,
    /// Below this a cgroup does not take part in a report.
    pub(super) floor: Duration,
    /// Who waits for the floor on one CPU leaves at least this in the cgroups above.
    /// Their pressure is the mean of all CPUs, each by the part of the time in which it
    /// was not idle (kernel/sched/psi.c, `collect_percpu_times`): the floor on one of
    /// them, the others busy all the time.
    pub(super) trace: Duration,
    /// What a cgroup can have waited at the most, by resource.
    pub(super) longest: [Duration; Resource::ALL.len()],
    /// From which on a wait is a finding, in this window.
    pub(super) limits: [Duration; RESOURCES.len()],
    pub(super) off: &'t mut BTreeSet<String>,
    pub(super) sets: CpuSets<'t>,
    pub(super) version_1: bool,
    pub(super) buffers: &'t mut Buffers,
    /// What was read, the root first, each after the cgroup above.
    pub(super) visits: Vec<Visit>,
    pub(super) impossible: Vec<String>,
    /// Looks at the clock, and whether the time was used up at the last.
    pub(super) looks: u64,
    pub(super) late: bool,
    /// Cgroups that may have waited in the window, and what they waited in it is not known.
    pub(super) unread: u64,
    /// Whether one of these may have waited for as long as a finding takes.
    pub(super) may_stall: bool,
}

/// A cgroup that was read in this scan.
#[derive(Debug, Default)]
pub(super) struct Visit {
    /// Which is the one above.
    parent: usize,
    reading: CgroupReading,
    /// New since it was read last, as far as it is surely of this time.
    stalls: Stalls,
    /// All that is new.
    new: Stalls,
    /// What those below can have waited since the scan before, at the most.
    within: Stalls,
    /// CPU time since the scan before, where that is known.
    used: Option<Duration>,
    /// The part of it that was surely used below, and what was at the most.
    explained: Duration,
    below: Duration,
    /// Which of the counters moved: those of [`RESOURCES`], and CPU time.
    moved: [bool; CPU + 1],
    /// Whether cgroups below may have moved.
    descends: bool,
    /// Cgroups right below that may have run, and it is not known for how long.
    unread: u64,
}

/// The part of a tree that is swept, by the path at which it begins or ends.
#[derive(Clone, Copy)]
pub(super) enum Part<'p> {
    /// From there to the end; all, from nowhere.
    From(&'p [OsString]),
    /// Up to there, where the other part begins.
    Until(&'p [OsString]),
}

impl<'p> Part<'p> {
    fn bounds(self) -> (Bound<&'p OsStr>, Bound<&'p OsStr>) {
        let first = |path: &'p [OsString]| path.first().map(OsString::as_os_str);
        match self {
            Self::From(path) => (
                first(path).map_or(Bound::Unbounded, Bound::Included),
                Bound::Unbounded,
            ),
            Self::Until(path) => (
                Bound::Unbounded,
                first(path).map_or(Bound::Unbounded, Bound::Included),
            ),
        }
    }

    /// The same part, of what is below a child.
    fn below(self, name: &OsStr) -> Option<Self> {
        match self {
            Self::From([first, rest @ ..]) if first == name => Some(Self::From(rest)),
            Self::Until([first, rest @ ..]) if first == name => {
                (!rest.is_empty()).then_some(Self::Until(rest))
            }
            Self::From(_) | Self::Until(_) => Some(Self::From(&[])),
        }
    }
}

/// Where a cgroup is.
#[derive(Clone, Copy)]
struct Place<'p> {
    /// The cgroup above: its place in the visits, the quiet of its counters, and its folder.
    parent: usize,
    quiet: &'p [Quiet; CPU + 1],
    folder: &'p Folder,
    name: &'p OsStr,
}

impl<'p> Place<'p> {
    fn files(self, buffers: &'p mut Buffers) -> Files<'p> {
        Files {
            above: self.folder,
            name: self.name,
            buffers,
        }
    }
}

/// Where a sweep ended before its end: the path of the first that it did not read.
type Cut = Vec<OsString>;

/// What became of a child.
enum Step {
    Done,
    Gone,
    Cut(Cut),
}

impl Scan<'_> {
    pub(super) const fn is_first(&self) -> bool {
        self.number == 1
    }

    /// Begins with the root. Its tasks are those of the node; whether these waited for as long as a
    /// finding takes.
    pub(super) fn begin(&mut self, top: &mut Branch, node: &Stalls) -> bool {
        let mut moved = [true; CPU + 1];
        for (i, resource) in RESOURCES.into_iter().enumerate() {
            let stall = &node[resource as usize];
            moved[i] = stall.some > self.trace;
            if !moved[i] {
                let most = at_most(self.window, self.cpus, stall);
                top.quiet[i].rest(self.previous, self.now, most);
            }
        }
        self.visits.push(Visit {
            new: *node,
            within: *node,
            moved,
            descends: true,
            ..Visit::default()
        });
        self.is_over(node)
    }

    /// Sets when the CPU time is used up, by the clock.
    pub(super) const fn take_until(&mut self, until: Duration) {
        self.until = until;
        self.looks = 0;
        self.late = false;
    }

    /// Counts a cgroup that nothing is known about.
    pub(super) const fn lose_one(&mut self) {
        self.unread += 1;
        self.may_stall = true;
    }

    /// Reads the cgroups with these paths, what matters most first, each after those above it. The
    /// first few are read whatever time there is.
    pub(super) fn follow(&mut self, top: &mut Branch, folder: &Folder, paths: &[String]) {
        let until = self.until;
        self.take_until(Duration::MAX);
        for (i, path) in paths.iter().enumerate() {
            if i == ALWAYS {
                self.take_until(until);
            }
            let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
            self.read_path(top, folder, 0, &parts);
        }
    }

    fn read_path(&mut self, branch: &mut Branch, folder: &Folder, at: usize, parts: &[&str]) {
        let quiet = branch.quiet;
        let [part, rest @ ..] = parts else {
            return;
        };
        if !self.needs(at) {
            return;
        }
        let Some((name, child)) = first::find(&mut branch.children, part) else {
            return;
        };
        if child.scan != self.number && self.is_late() {
            return;
        }
        let place = Place {
            parent: at,
            quiet: &quiet,
            folder,
            name: &name,
        };
        let Some(visit) = self.visit_once(child, place) else {
            let gone = branch.children.remove(&name);
            self.forget(gone);
            return;
        };
        if !rest.is_empty()
            && self.visits[visit].descends
            && let Ok(own) = folder.below(&name)
        {
            self.read_path(child, &own, visit, rest);
        }
    }

    /// Looks for who stalls: all cgroups below one, and then those below the few that waited and ran
    /// most. It begins where the last sweep ended, and takes each cgroup once.
    pub(super) fn hunt(
        &mut self,
        branch: &mut Branch,
        folder: &Folder,
        at: usize,
        from: &[OsString],
        depth: usize,
    ) {
        if depth >= DEEPEST {
            return;
        }
        let quiet = branch.quiet;
        let mut active: Vec<(f64, OsString, usize)> = Vec::new();
        for part in [Part::From(from), Part::Until(from)] {
            if matches!(part, Part::Until([])) {
                continue;
            }
            for (name, child) in branch.children.range_mut::<OsStr, _>(part.bounds()) {
                if !self.needs(at) || child.scan != self.number && self.is_late() {
                    break;
                }
                let place = Place {
                    parent: at,
                    quiet: &quiet,
                    folder,
                    name,
                };
                // One that has gone is for the sweep.
                if let Some(visit) = self.visit_once(child, place)
                    && self.visits[visit].descends
                {
                    active.push((self.activity(visit), name.clone(), visit));
                }
            }
        }
        active.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
        for (_, name, visit) in active.into_iter().take(HUNTED) {
            if let Some(child) = branch.children.get_mut(&name)
                && let Some(own) = self.enter(child, folder, &name)
            {
                let from = match from {
                    [first, rest @ ..] if *first == name => rest,
                    _ => &[],
                };
                self.hunt(child, &own, visit, from, depth + 1);
            }
        }
    }

    /// How much of the window a cgroup and those below it waited or ran, at the most.
    fn activity(&self, visit: usize) -> f64 {
        let visit = &self.visits[visit];
        let waits = RESOURCES.iter().zip(&self.limits).map(|(resource, limit)| {
            let waited = visit.within[*resource as usize].some;
            waited.div_duration_f64((*limit).max(Duration::from_micros(1)))
        });
        let ran = visit.used.unwrap_or_default();
        waits.fold(ran.as_secs_f64() / self.window.as_secs_f64(), f64::max)
    }

    /// Reads the cgroups below one, as far as they may have moved; where it ended, if before its
    /// end.
    pub(super) fn sweep(
        &mut self,
        branch: &mut Branch,
        folder: &Folder,
        at: usize,
        part: Part<'_>,
        depth: usize,
    ) -> Option<Cut> {
        if depth >= DEEPEST {
            self.lose_one();
            return None;
        }
        let quiet = branch.quiet;
        let mut gone = Vec::new();
        let mut cut = None;
        for (name, child) in branch.children.range_mut::<OsStr, _>(part.bounds()) {
            if !self.needs(at) {
                break;
            }
            let place = Place {
                parent: at,
                quiet: &quiet,
                folder,
                name,
            };
            match self.step(child, place, part.below(name), depth) {
                Step::Done => {}
                Step::Gone => gone.push(name.clone()),
                Step::Cut(path) => {
                    cut = Some(path);
                    break;
                }
            }
        }
        for name in gone {
            let gone = branch.children.remove(&name);
            self.forget(gone);
        }
        cut
    }

    fn step(
        &mut self,
        child: &mut Branch,
        place: Place<'_>,
        part: Option<Part<'_>>,
        depth: usize,
    ) -> Step {
        if child.scan != self.number && self.is_late() {
            return Step::Cut(vec![place.name.to_owned()]);
        }
        let Some(visit) = self.visit_once(child, place) else {
            return Step::Gone;
        };
        let Some(part) = part.filter(|_| self.visits[visit].descends) else {
            return Step::Done;
        };
        let Some(own) = self.enter(child, place.folder, place.name) else {
            return Step::Done;
        };
        match self.sweep(child, &own, visit, part, depth + 1) {
            Some(mut path) => {
                path.insert(0, place.name.to_owned());
                Step::Cut(path)
            }
            None => Step::Done,
        }
    }

    /// Opens a child, and brings the names of those below it up to date; `None` where there are
    /// none.
    fn enter(&mut self, child: &mut Branch, folder: &Folder, name: &OsStr) -> Option<Folder> {
        let count = folder.count_below(name).ok()?;
        if count == Some(0) && child.children.is_empty() && child.listed.is_some() {
            child.listed = Some((self.now, self.number));
            return None;
        }
        let own = folder.below(name).ok()?;
        let listed = child.listed.is_some_and(|(_, scan)| {
            scan == self.number
                || count == Some(child.children.len())
                    && child.children.len() > MANY
                    && self.number - scan < LISTED_FOR
        });
        if !listed {
            self.list(child, &own);
        }
        Some(own)
    }

    /// Brings the names of the children up to date.
    pub(super) fn list(&mut self, branch: &mut Branch, folder: &Folder) {
        let mut new = Vec::new();
        let mut there = 0;
        let children = &mut branch.children;
        // A cgroup that has gone in between has no children any more.
        let _ = folder.each(self.buffers, |name, id| match children.get_mut(name) {
            Some(child) => {
                child.listing = self.number;
                child.id = id;
                there += 1;
            }
            None => new.push((name.to_owned(), id)),
        });
        if there < children.len() {
            let gone = children.extract_if(.., |_, child| child.listing != self.number);
            let gone: usize = gone.map(|(_, child)| child.size()).sum();
            self.known = self.known.saturating_sub(gone);
        }
        let born = branch.listed.map(|(at, _)| at).or(branch.born);
        branch.listed = Some((self.now, self.number));
        for (name, id) in new {
            if self.known >= self.most {
                // Nobody knows who is born when some have no place.
                branch.listed = None;
                self.lose_one();
                break;
            }
            self.known += 1;
            branch
                .children
                .insert(name, Branch::new(id, born, self.number));
        }
    }

    fn forget(&mut self, branch: Option<Branch>) {
        let size = branch.as_ref().map_or(0, Branch::size);
        self.known = self.known.saturating_sub(size);
    }

    /// Whether the time for this scan is used up.
    fn is_late(&mut self) -> bool {
        if self.looks.is_multiple_of(BETWEEN_LOOKS) {
            self.late = (self.clock)() >= self.until || Instant::now() >= self.deadline;
        }
        if !self.late {
            self.looks += 1;
        }
        self.late
    }

    /// The CPU time of a cgroup that no cgroup below it is known to have used.
    fn unexplained(&self, at: usize) -> Duration {
        let visit = &self.visits[at];
        visit
            .used
            .map_or(Duration::MAX, |used| used.saturating_sub(visit.explained))
    }

    /// Whether cgroups right below one may have moved: who waits in one leaves a trace above, and
    /// CPU time adds up.
    fn needs(&self, at: usize) -> bool {
        let within = &self.visits[at].within;
        self.all
            || RESOURCES
                .iter()
                .any(|resource| within[*resource as usize].some > self.trace)
            || self.unexplained(at) > self.floor
    }

    /// Whether a cgroup that was read waited for as long as a finding takes.
    pub(super) fn has_stalled(&self) -> bool {
        let read = self.visits.iter().skip(1);
        let mut current = read.filter(|it| !it.reading.is_older());
        current.any(|it| self.is_over(&it.stalls))
    }

    fn visit_once(&mut self, branch: &mut Branch, place: Place<'_>) -> Option<usize> {
        if branch.scan != self.number {
            branch.visit = self.visit(branch, place)?;
            branch.scan = self.number;
        }
        Some(branch.visit)
    }

    /// Reads a cgroup; `None` if it has gone.
    fn visit(&mut self, branch: &mut Branch, place: Place<'_>) -> Option<usize> {
        let Place {
            parent,
            quiet,
            name,
            ..
        } = place;
        let path = format!(
            "{}/{}",
            self.visits[parent].reading.path,
            cgroup::shown(name)
        );
        let above = self.visits[parent].within;
        let mut read = Read {
            visit: Visit {
                parent,
                ..Visit::default()
            },
            used_at_most: Duration::ZERO,
            since: self.previous,
            has_files: true,
            has_begun: true,
        };
        self.stalls(&mut read, branch, place, &path);
        let pressed = [Resource::Memory, Resource::Io]
            .into_iter()
            .any(|resource| above[resource as usize].some > self.floor);
        let unexplained = self.unexplained(parent);
        let waits_for_cpu = read.visit.stalls[Resource::Cpu as usize].some > self.floor;
        let unknown = self.all || self.version_1 || !read.has_files;
        let is_vague = branch.cpu.is_none_or(|it| it.slack > self.window / 10);
        if unknown || pressed || waits_for_cpu || is_vague || unexplained > self.floor {
            self.cpu(&mut read, branch, place)?;
        } else {
            branch.take_as_read(quiet, self.previous, self.now, unexplained);
        }
        if !read.has_files {
            // Who keeps no account of its own pressure may hide some.
            read.visit.within = above;
            if self.off.len() < TOLD {
                self.off.insert(path.clone());
            }
        }
        if !read.has_begun {
            read.visit.within = above;
            self.unread += 1;
            self.may_stall |= self.could_stall(&above);
        }
        let is_first = self.is_first();
        let mut files = place.files(self.buffers);
        let reading = &mut read.visit.reading;
        if reading.throttled_periods > 0 {
            reading.quota_cpus = files.quota();
        }
        if waits_for_cpu {
            let allowed = files.allowed_cpus();
            let isolated = allowed.as_ref().zip(self.sets.isolated);
            reading.isolated_cpus = isolated.map(|(own, all)| machine::count(&(own & all)));
            reading.allowed_idle = allowed.as_ref().and_then(|own| self.sets.idle_of(own));
            reading.allowed_cpus = allowed.as_ref().map(machine::count);
        }
        let is_idle = branch.is_idle && !read.visit.moved.contains(&true);
        let in_time = !is_first || Instant::now() < self.details_until;
        if in_time && (is_first || pressed && !is_idle) {
            details(reading, branch, &mut files, self.previous, self.now);
        } else if pressed && let Some(io) = &mut branch.io {
            // Nothing ran, and nothing waits to be written.
            io.at = self.now;
        }
        reading.path = path;
        reading.waits = Waits::new(&read.visit.stalls);
        if read.since < self.previous {
            reading.window_seconds = Some((self.now - read.since).as_secs_f64());
            self.unread += 1;
            self.may_stall |= self.is_over(&read.visit.stalls) || reading.throttled_periods > 0;
            // What it used before the window explains nothing in it.
            read.visit.used = None;
        }
        let visit = &mut read.visit;
        if !visit.reading.is_older() && self.is_over(&visit.new) && !self.is_over(&visit.stalls) {
            // It waited for long, but perhaps before the window.
            self.unread += 1;
            self.may_stall = true;
        }
        let waits = visit.within.iter().any(|stall| stall.some > self.trace);
        visit.descends = self.all || waits || visit.moved[CPU];
        match visit.used {
            Some(used) => {
                let above = &mut self.visits[parent];
                above.explained += used;
                above.below += read.used_at_most;
            }
            None => self.visits[parent].unread += 1,
        }
        self.visits.push(read.visit);
        Some(self.visits.len() - 1)
    }

    /// The stalls since the last look, of what the cgroup above has waited for.
    fn stalls(&mut self, read: &mut Read, branch: &mut Branch, place: Place<'_>, path: &str) {
        let above = self.visits[read.visit.parent].within;
        let mut asked = false;
        for (i, resource) in RESOURCES.into_iter().enumerate() {
            let of = resource as usize;
            if !self.all && above[of].some <= self.trace {
                continue;
            }
            asked = true;
            let mut files = place.files(self.buffers);
            // It may have gone as well; then its CPU time has, too.
            let Ok(now) = files.pressure(resource) else {
                read.has_files = false;
                continue;
            };
            let before = branch.stalls[i].replace(Counted::new(now, self.now));
            let Some(mut before) = before else {
                branch.quiet[i].wake(self.now);
                read.has_begun &= self.is_first();
                continue;
            };
            let at = before.at;
            place.quiet[i].carry(&mut before);
            let new = now.since(before.value);
            let own = Stall {
                some: new.some.saturating_sub(before.slack),
                full: new.full.saturating_sub(before.slack),
            };
            let longest = if before.at < self.previous {
                with_tolerance(self.now.saturating_sub(before.at))
            } else {
                self.longest[of]
            };
            branch.quiet[i].follow(at, &before);
            read.visit.within[of] = new;
            if own.some <= longest {
                read.visit.stalls[of] = own;
                read.visit.new[of] = new;
            } else if !self.impossible.iter().any(|it| it == path) {
                self.impossible.push(path.to_owned());
            }
            if new.some > self.trace {
                read.visit.moved[i] = true;
            } else {
                let most = at_most(self.now.saturating_sub(before.at), self.cpus, &new);
                branch.quiet[i].rest(before.at, self.now, most);
            }
            read.since = read.since.min(before.at);
        }
        if read.has_files && asked {
            self.off.remove(path);
        }
    }

    /// What it used of CPUs, and how its quota held it; `None` if it has gone.
    fn cpu(&mut self, read: &mut Read, branch: &mut Branch, place: Place<'_>) -> Option<()> {
        let mut files = place.files(self.buffers);
        let now = match files.cpu() {
            Ok(now) => now,
            Err(error) if cgroup::has_gone(&error) => return None,
            Err(_) => {
                read.visit.moved[CPU] = true;
                return Some(());
            }
        };
        let Some(mut before) = branch.cpu.replace(Counted::new(now, self.now)) else {
            branch.quiet[CPU].wake(self.now);
            read.visit.moved[CPU] = true;
            return Some(());
        };
        let at = before.at;
        place.quiet[CPU].carry(&mut before);
        branch.quiet[CPU].follow(at, &before);
        let new = now.usage.saturating_sub(before.value.usage);
        let used = new.saturating_sub(before.slack);
        if new > self.floor {
            read.visit.moved[CPU] = true;
        } else {
            branch.quiet[CPU].rest(before.at, self.now, new);
        }
        branch.is_idle &= new.is_zero();
        read.visit.used = Some(used);
        read.used_at_most = new;
        read.since = read.since.min(before.at);
        let reading = &mut read.visit.reading;
        let before = before.value;
        reading.cpu_seconds = used.as_secs_f64();
        let throttled = now.throttled.saturating_sub(before.throttled);
        reading.throttled_seconds = throttled.as_secs_f64();
        reading.periods = now.periods.saturating_sub(before.periods);
        reading.throttled_periods = now
            .throttled_periods
            .saturating_sub(before.throttled_periods);
        Some(())
    }

    fn is_over(&self, stalls: &Stalls) -> bool {
        let mut limits = RESOURCES.iter().zip(&self.limits);
        limits.any(|(resource, limit)| stalls[*resource as usize].some > *limit)
    }

    /// Whether a cgroup below one that waited so long can have waited for as long as a finding
    /// takes.
    fn could_stall(&self, above: &Stalls) -> bool {
        self.is_over(&above.map(|stall| Stall {
            some: at_most(self.window, self.cpus, &stall),
            full: Duration::ZERO,
        }))
    }

    /// Brings what was not read up to date, as far as it cannot have moved, and counts the rest.
    pub(super) fn settle(&mut self, branch: &mut Branch, at: usize) {
        let needs = self.needs(at);
        let unexplained = self.unexplained(at);
        let moved = self.visits[at].moved;
        let quiet = branch.quiet;
        let mut unread = 0;
        for child in branch.children.values_mut() {
            if child.scan == self.number {
                if self.visits[child.visit].descends {
                    self.settle(child, child.visit);
                }
            } else if needs {
                unread += 1;
                child.carry(&quiet);
            } else {
                child.take_as_read(&quiet, self.previous, self.now, unexplained);
            }
        }
        for (quiet, _) in branch.quiet.iter_mut().zip(moved).filter(|(_, it)| *it) {
            quiet.wake(self.now);
        }
        if unread > 0 {
            self.unread += unread;
            self.may_stall |= self.could_stall(&self.visits[at].within);
            self.visits[at].unread += unread;
        }
    }

    /// What readings show of it.
    pub(super) fn results(mut self) -> Scanned {
        let floor = self.floor.as_secs_f64();
        let mut scanned = Scanned::default();
        let mut shown = vec![false; self.visits.len()];
        for (i, visit) in self.visits.iter_mut().enumerate().skip(1) {
            let much = visit.stalls.iter().any(|stall| stall.some > self.floor);
            let reading = &mut visit.reading;
            // What cgroups below used is not its own, and of some that is not known.
            let used = visit.used.filter(|_| visit.unread == 0);
            let own = used.unwrap_or_default().saturating_sub(visit.below);
            reading.own_cpu_seconds = own.as_secs_f64();
            if visit.new.iter().any(|stall| !stall.some.is_zero()) {
                scanned.stalls.push((reading.path.clone(), visit.new, much));
            }
            let is_older = reading.is_older();
            let did = own > self.floor
                || reading.throttled_periods > 0
                || reading.memory.is_some()
                || !reading.io.is_empty()
                || is_older && reading.cpu_seconds > floor;
            shown[i] = self.number > 1 && (much || did);
        }
        // A cgroup comes after the one above it.
        for i in (1..shown.len()).rev() {
            let parent = self.visits[i].parent;
            shown[parent] |= shown[i];
        }
        let visits = self.visits.into_iter().zip(shown).skip(1);
        let shown = visits.filter(|(_, shown)| *shown);
        scanned.cgroups = shown.map(|(visit, _)| visit.reading).collect();
        scanned.impossible = self.impossible;
        scanned
    }
}

/// What is known of a cgroup while its files are read.
struct Read {
    visit: Visit,
    /// Its new CPU time; some may be of before the window.
    used_at_most: Duration,
    /// Since when its counters count.
    since: Duration,
    /// Whether it has all pressure files that were asked for.
    has_files: bool,
    /// Whether all of them had been read before.
    has_begun: bool,
}

/// What the controllers of memory and I/O say, where the cgroup has them.
fn details(
    reading: &mut CgroupReading,
    branch: &mut Branch,
    files: &mut Files<'_>,
    previous: Duration,
    at: Duration,
) {
    branch.is_idle = true;
    if let Ok(now) = files.memory() {
        let before = branch.memory.replace(Counted::new(now, at));
        let before = before.filter(|it| it.at >= previous);
        branch.is_idle = now.dirty == 0;
        reading.memory = Some(MemoryReading {
            current: now.current,
            high: now.high,
            max: now.max,
            dirty: now.dirty,
            inactive_file: now.inactive_file,
            window: before.map(|before| since(now, before.value)),
        });
    }
    if let Ok(now) = files.io() {
        let before = branch.io.replace(Counted::new(now.clone(), at));
        let Some(before) = before.filter(|it| it.at >= previous) else {
            return;
        };
        let device = |(device, now): (String, Transfer<u64>)| {
            let before = before.value.get(&device).copied().unwrap_or_default();
            let moved = Transfer {
                read_bytes: now.read_bytes.saturating_sub(before.read_bytes),
                written_bytes: now.written_bytes.saturating_sub(before.written_bytes),
                reads: now.reads.saturating_sub(before.reads),
                writes: now.writes.saturating_sub(before.writes),
            };
            (moved.reads + moved.writes > 0).then_some((device, moved))
        };
        reading.io_max = files.io_max();
        reading.io = now.into_iter().filter_map(device).collect();
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
