//! What the probes count in the kernel.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::{
    include_bytes_aligned,
    maps::{Array, MapData, PerCpuArray, StackTraceMap},
};
use ebpf::psi_stall::{COMMAND, Doing, Loss, Stall, Sum, Task, Totals, Waiter};

use super::{
    CauseReading, CgroupReading, ProbedReading, RunnerReading, Settings, TaskWaits, WaiterReading,
    ancestors,
    names::Names,
    tracer::TaskTracer,
    tree::{Scanned, Tree},
};
use crate::{
    ailments::{
        counters,
        durations::Durations,
        psi_stall::{
            causes::Cause,
            support::{MEMORY, Plan},
        },
        ranking::Ranks,
    },
    kernel::{
        addresses::{self, Ranges},
        bpf::{HashMap as KernelMap, Object, Parameters, Probes},
        pressure::Resource,
    },
    model::{Missing, ProbeReport, ProgramStats},
    time::monotonic,
    wakeup::WakeUp,
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/psi_stall"));

/// Who waited longest, in a reading.
const NAMED: usize = 20;

/// A wait that is under way for longer is taken for one whose end was not seen: the
/// kernel's own pauses end after two seconds (mm/memcontrol.c, `MEMCG_MAX_HIGH_DELAY_JIFFIES`),
/// and a disk is given up after half a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// The probes that are attached, and their maps.
#[derive(Debug)]
pub(super) struct Probed {
    /// Those that are always there.
    rare: Probes,
    /// Absent where there is nothing to attach.
    running: Option<Running>,
    /// Of the probe on tasks, and why there are no causes.
    reports: Vec<ProbeReport>,
}

struct Running {
    totals: PerCpuArray<MapData, Totals>,
    waiters: KernelMap<Waiter, Sum>,
    stalls: KernelMap<u64, Stall>,
    /// What waits that were under way at the last reading had taken by then.
    open: HashMap<Who, Sum>,
    epoch: Array<MapData, u64>,
    now: u64,
    paths: Paths,
    names: Names,
    /// Time by cause since the agent began, nanoseconds.
    causes: BTreeMap<Cause, u64>,
    /// The same by cgroup, of [`RESOURCES`].
    shown: Ranks<String, { RESOURCES.len() }>,
    trace: TaskTracer,
    traced_since: Array<MapData, u64>,
    tasks: KernelMap<Task, Sum>,
    /// What the last trace saw, for the findings until the next.
    seen: Seen,
    /// Keeps the maps, and the code of the trace.
    object: Object,
}

/// Who waited for CPUs and disks, and who ran, in the busiest window of a trace.
#[derive(Default)]
struct Seen {
    waiters: Vec<WaiterReading>,
    runners: Vec<RunnerReading>,
}

/// What tasks wait for.
const RESOURCES: [Resource; 3] = [Resource::Memory, Resource::Cpu, Resource::Io];

/// A cgroup whose own quota held it back for more than this part of what its tasks waited
/// is throttled; the rest waited for others.
const BY_QUOTA: f64 = 0.5;

/// Whose waits are told apart: by cgroup, command and cause.
type Who = (u64, [u8; COMMAND], Cause);

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Probed {
    /// Attaches what the plan names, as far as the kernel lets it.
    pub(super) fn attach(
        plan: &Plan,
        settings: &Settings,
        wakeup: &WakeUp,
    ) -> anyhow::Result<Self> {
        let mut rare = Probes::of(&plan.rare, &settings.hooks);
        let tasks = Probes::of([&plan.tasks], &settings.hooks);
        if !rare.can_attach() && !tasks.can_attach() {
            return Ok(Self {
                rare,
                running: None,
                reports: tasks.reports().to_vec(),
            });
        }
        let parameters = Parameters::default().global("OFFSETS", &plan.offsets);
        let mut object = Object::load("psi_stall", OBJECT, &parameters)?;
        rare.attach(&mut object);
        let trace = TaskTracer::new(tasks, settings, &mut object, wakeup);
        let causes = hidden().map(|missing| ProbeReport::not_measured("causes", &missing));
        Ok(Self {
            rare,
            running: Some(Running::new(object, trace, settings)?),
            reports: causes.into_iter().collect(),
        })
    }

    pub(super) fn reports(&self) -> Vec<ProbeReport> {
        let rare = self.rare.reports().iter().chain(&self.reports);
        let trace = self.running.iter().flat_map(|it| it.trace.reports());
        rare.chain(trace).cloned().collect()
    }

    /// What was counted since the last time, by the cgroups that have waited or run.
    /// Where tasks wait for CPUs or disks, the trace over them begins.
    pub(super) fn read(
        &mut self,
        scanned: &Scanned,
        tree: Option<&Tree>,
        called: bool,
    ) -> anyhow::Result<Option<ProbedReading>> {
        let Some(running) = &mut self.running else {
            return Ok(None);
        };
        let mut reading = running.read(scanned, tree, &self.rare.stats())?;
        reading.memory_causes = self.rare.has(MEMORY.name);
        running.trace(called)?;
        Ok(Some(reading))
    }

    /// The cgroups that waited or ran longest in the trace that is on, those with most time first.
    pub(super) fn traced(&mut self, tree: &Tree) -> anyhow::Result<Vec<String>> {
        let running = self.running.as_mut().filter(|it| it.trace.is_on());
        running.map_or(Ok(Vec::new()), |it| it.traced(tree))
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        let trace = self.running.iter().flat_map(|it| it.trace.programs());
        self.rare.stats().into_iter().chain(trace).collect()
    }
}

/// Why the path of a wait will not be told.
fn hidden() -> Option<Missing> {
    let why = match addresses::shown() {
        Ok(true) => return None,
        Ok(false) => "the kernel hides the addresses of its functions from this process".to_owned(),
        Err(error) => format!("read /proc/kallsyms: {error}"),
    };
    Some(Missing {
        what: "the path of the kernel in which tasks wait for memory".to_owned(),
        why,
        remedy: "run as root with CAP_SYSLOG, and kernel.kptr_restrict below 2; until then \
                 nodemedic measures which tasks wait, and how long"
            .to_owned(),
    })
}

impl Running {
    fn new(mut object: Object, trace: TaskTracer, settings: &Settings) -> anyhow::Result<Self> {
        let mut map = |name| object.take_map(name);
        let totals = map("TOTALS")?.try_into().context("open map TOTALS")?;
        let epoch = map("EPOCH")?.try_into().context("open map EPOCH")?;
        let stacks = map("STACKS")?.try_into().context("open map STACKS")?;
        let traced_since = map("TRACED_SINCE")?;
        let traced_since = traced_since.try_into().context("open map TRACED_SINCE")?;
        Ok(Self {
            totals,
            waiters: object.take_hash_map("WAITERS")?,
            stalls: object.take_hash_map("STALLS")?,
            open: HashMap::new(),
            epoch,
            now: 0,
            paths: Paths::new(stacks),
            names: Names::default(),
            causes: BTreeMap::new(),
            shown: Ranks::new(settings.top_cgroups as usize),
            trace,
            traced_since,
            tasks: object.take_hash_map("TASKS")?,
            seen: Seen::default(),
            object,
        })
    }

    fn traced(&mut self, tree: &Tree) -> anyhow::Result<Vec<String>> {
        let mut times: HashMap<(u64, u64), u64> = HashMap::new();
        for (task, sum) in self.tasks.read()? {
            *times.entry((task.cgroup, task.doing)).or_default() += sum.ns;
        }
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
        let most = [Doing::Runs, Doing::WaitsForCpu, Doing::WaitsForIo].map(|doing| {
            let did = times.iter().filter(|((_, did), _)| *did == doing as u64);
            did.map(|((cgroup, _), _)| *cgroup).collect::<Vec<_>>()
        });
        let in_turn = (0..NAMED).flat_map(|i| most.iter().filter_map(move |it| it.get(i)));
        let ids: Vec<_> = in_turn.copied().collect();
        self.names
            .learn(ids.iter().copied(), |ids| find(Some(tree), ids));
        let paths = ids.iter().filter_map(|id| self.names.path(*id));
        Ok(paths.map(str::to_owned).collect())
    }

    fn read(
        &mut self,
        scanned: &Scanned,
        tree: Option<&Tree>,
        rare: &[ProgramStats],
    ) -> anyhow::Result<ProbedReading> {
        let traced = self.trace.is_on();
        let (waits, doings) = (self.waits()?, self.doings()?);
        let ids = waits.keys().map(|(cgroup, ..)| *cgroup);
        let ids = ids.chain(doings.iter().map(|(task, _)| task.cgroup));
        self.names.learn(ids, |ids| find(tree, ids));
        let mut waiters = Vec::new();
        for ((cgroup, command, cause), sum) in waits {
            let path = self.names.path(cgroup).map(str::to_owned);
            waiters.push(waiter(Resource::Memory, path, command, cause, sum));
        }
        let mut seen = Seen::default();
        for (task, sum) in doings {
            let path = self.names.path(task.cgroup).map(str::to_owned);
            if task.doing == Doing::Runs as u64 {
                seen.runners.push(runner(path, task.command, sum));
                continue;
            }
            let (resource, cause) = if task.doing == Doing::WaitsForIo as u64 {
                (Resource::Io, Cause::Iowait)
            } else if is_throttled(path.as_deref(), &scanned.cgroups) {
                (Resource::Cpu, Cause::Throttled)
            } else {
                (Resource::Cpu, Cause::RunQueue)
            };
            let waiter = waiter(resource, path, task.command, cause, sum);
            seen.waiters.push(waiter.1.clone());
            waiters.push(waiter);
        }
        let mut window: BTreeMap<Cause, u64> = BTreeMap::new();
        let now = Instant::now();
        for (ns, waiter) in &waiters {
            *window.entry(waiter.cause).or_default() += ns;
            *self.causes.entry(waiter.cause).or_default() += ns;
            self.count(now, waiter, *ns);
        }
        self.seen.keep(seen);
        // Of a trace that is over findings still tell, counters do not.
        let waiters = waiters.into_iter().map(|(_, waiter)| waiter);
        let of_memory = waiters.filter(|it| it.resource == Resource::Memory);
        let waiters = of_memory.chain(self.seen.waiters.iter().cloned());
        let totals = self.totals.get(&0, 0).context("read map TOTALS")?;
        let shown = self.shown.shown().into_iter();
        Ok(ProbedReading {
            memory: Durations::of(totals.iter().map(|it| &it.memory)),
            causes: causes(&self.causes, &window),
            waiters: longest(waiters.collect()),
            runners: most(self.seen.runners.clone()),
            trace: self.trace.reading(traced),
            memory_causes: false,
            shown: shown.map(|(path, ns)| (path, waits_of(ns))).collect(),
            other: waits_of(self.shown.other()),
            lost: counters::lost(
                Loss::ALL.map(Loss::name),
                totals.iter().map(|totals| totals.lost),
                &[rare, &self.trace.programs()].concat(),
            ),
        })
    }

    /// Begins or ends the trace over tasks.
    fn trace(&mut self, called: bool) -> anyhow::Result<()> {
        self.trace.end_in_time();
        if !called && self.trace.is_over() {
            self.seen = Seen::default();
        }
        if called && self.trace.is_due() {
            let now = monotonic().as_nanos() as u64;
            let since = &mut self.traced_since;
            since.set(0, now, 0).context("write map TRACED_SINCE")?;
            self.seen = Seen::default();
            self.trace.begin(&mut self.object);
        }
        Ok(())
    }

    /// Takes what tasks did before this reading out of the map.
    fn doings(&mut self) -> anyhow::Result<Vec<(Task, Sum)>> {
        let mut doings = self.tasks.read()?;
        doings.retain(|(task, _)| task.epoch < self.now);
        for (task, _) in &doings {
            self.tasks.remove(task)?;
        }
        Ok(doings)
    }

    /// Adds to what metrics show of a cgroup; the kernel's own threads are in none.
    fn count(&mut self, now: Instant, waiter: &WaiterReading, ns: u64) {
        let new = RESOURCES.map(|it| if it == waiter.resource { ns } else { 0 });
        match &waiter.path {
            Some(path) if !waiter.cause.is_for_others() => {
                self.shown.count(now, path.clone(), new);
            }
            _ => self.shown.count_aside(&String::new(), new),
        }
    }

    /// The waits of the window: what has ended in it, and of what is under way the part that
    /// lies in it, as the kernel's own count has it.
    fn waits(&mut self) -> anyhow::Result<HashMap<Who, Sum>> {
        // What ends from here on is of the next reading: no program adds to what is taken
        // out, but one that has begun to just now.
        self.now += 1;
        let epoch = &mut self.epoch;
        epoch.set(0, self.now, 0).context("write map EPOCH")?;
        let open = self.open()?;
        let ended = self.take()?;
        Ok(window(&mut self.open, open, ended))
    }

    /// What the waits that are under way have taken by now.
    fn open(&mut self) -> anyhow::Result<HashMap<Who, Sum>> {
        let now = monotonic();
        let mut open: HashMap<Who, Sum> = HashMap::new();
        for (thread, stall) in self.stalls.read()? {
            let waits = now.saturating_sub(Duration::from_nanos(stall.began_ns));
            if waits > LONGEST {
                self.stalls.remove(&thread)?;
                continue;
            }
            let cause = self.paths.cause(stall.stack, stall.compacts);
            let ns = waits.as_nanos() as u64;
            let sum = Sum {
                count: 1,
                ns,
                longest_ns: ns,
            };
            add(
                open.entry((stall.cgroup, stall.command, cause))
                    .or_default(),
                sum,
            );
        }
        Ok(open)
    }

    /// Takes what has ended before this reading out of the map.
    fn take(&mut self) -> anyhow::Result<HashMap<Who, Sum>> {
        let mut ended: HashMap<Who, Sum> = HashMap::new();
        for (waiter, sum) in self.waiters.read()? {
            if waiter.epoch < self.now {
                self.waiters.remove(&waiter)?;
                let cause = self.paths.cause(waiter.stack, waiter.compacts);
                let who = (waiter.cgroup, waiter.command, cause);
                add(ended.entry(who).or_default(), sum);
            }
        }
        Ok(ended)
    }
}

impl Seen {
    /// Takes in another window of the same trace, if more was going on in it.
    fn keep(&mut self, new: Self) {
        let ran = |seen: &Self| seen.runners.iter().map(|it| it.seconds).sum::<f64>();
        if ran(&new) > ran(self) {
            *self = new;
        }
    }
}

fn find(tree: Option<&Tree>, ids: &HashSet<u64>) -> Vec<(u64, String)> {
    tree.map(|tree| tree.find(ids)).unwrap_or_default()
}

/// The counters of all causes, since the agent began and of the window, nanoseconds.
fn causes(all: &BTreeMap<Cause, u64>, window: &BTreeMap<Cause, u64>) -> Vec<CauseReading> {
    let seconds =
        |causes: &BTreeMap<Cause, u64>, cause| causes.get(cause).map_or(0.0, |ns| *ns as f64 / 1e9);
    let of = |resource: Resource| Cause::of(resource).iter().map(move |it| (resource, it));
    let causes = RESOURCES.into_iter().flat_map(of);
    causes
        .map(|(resource, cause)| CauseReading {
            resource,
            cause: *cause,
            total: seconds(all, cause),
            window: seconds(window, cause),
        })
        .collect()
}

/// Whether what the tasks of a cgroup wait for is a quota, of its own or of one above.
fn is_throttled(path: Option<&str>, cgroups: &[CgroupReading]) -> bool {
    let Some(path) = path else {
        return false;
    };
    let at = |path: &str| cgroups.iter().find(|it| it.path == path && !it.is_older());
    let waited = at(path).map_or(0.0, |it| it.waits.cpu.some);
    let upwards = std::iter::once(path).chain(ancestors(path)).filter_map(at);
    let held = upwards.map(|it| it.throttled_seconds).fold(0.0, f64::max);
    held > BY_QUOTA * waited
}

/// The waits of a window, of what has ended in it and what is under way at its end. `counted`
/// is what was counted of those that had not ended at its begin, and becomes that of those
/// which have not at its end: one that ended just now may be in neither, and is in the next.
fn window(
    counted: &mut HashMap<Who, Sum>,
    open: HashMap<Who, Sum>,
    ended: HashMap<Who, Sum>,
) -> HashMap<Who, Sum> {
    let before = std::mem::replace(counted, open.clone());
    let mut waits = ended;
    for (who, sum) in open {
        add(waits.entry(who).or_default(), sum);
    }
    for (who, before) in before {
        let sum = waits.entry(who).or_default();
        let (ns, count) = (before.ns.min(sum.ns), before.count.min(sum.count));
        sum.ns -= ns;
        sum.count -= count;
        let rest = Sum {
            ns: before.ns - ns,
            count: before.count - count,
            longest_ns: 0,
        };
        if rest.ns > 0 {
            add(counted.entry(who).or_default(), rest);
        }
    }
    waits.retain(|_, sum| sum.ns > 0);
    waits
}

/// The stacks of waits, and what they mean.
struct Paths {
    stacks: StackTraceMap<MapData>,
    known: HashMap<u32, Cause>,
    /// Read when there is the first stack: most nodes never have one.
    ranges: Option<Ranges>,
}

impl Paths {
    /// The map has places for eight times as many: a hash chooses the place, and that
    /// another stack is there already must be rare.
    const MOST: usize = 512;

    fn new(stacks: StackTraceMap<MapData>) -> Self {
        Self {
            stacks,
            known: HashMap::new(),
            ranges: None,
        }
    }

    fn cause(&mut self, stack: i32, compacts: u32) -> Cause {
        let Ok(id) = u32::try_from(stack) else {
            return Cause::Unknown;
        };
        let cause = match self.known.get(&id) {
            Some(cause) => *cause,
            None => self.learn(id),
        };
        // One function may do both.
        match (cause, compacts) {
            (Cause::DirectReclaim, 1) => Cause::Compaction,
            (cause, _) => cause,
        }
    }

    fn learn(&mut self, id: u32) -> Cause {
        if self.known.len() >= Self::MOST {
            self.forget();
        }
        let ranges = self.ranges.get_or_insert_with(|| {
            Ranges::find(&Cause::functions())
                .inspect_err(|error| tracing::warn!("causes of waits are unknown: {error}"))
                .unwrap_or_default()
        });
        let Ok(stack) = self.stacks.get(&id, 0) else {
            return Cause::Unknown;
        };
        let frames: Vec<_> = stack.frames().iter().map(|frame| frame.ip).collect();
        let cause = if ranges.is_empty() {
            Cause::Unknown
        } else {
            Cause::of_stack(&frames, ranges)
        };
        self.known.insert(id, cause);
        cause
    }

    /// Makes room. A wait that is under way may lose its stack, and has no cause then.
    fn forget(&mut self) {
        for (id, _) in self.known.drain() {
            let _gone = self.stacks.remove(&id);
        }
    }
}

/// In the order of [`RESOURCES`].
fn waits_of(ns: [u64; RESOURCES.len()]) -> TaskWaits {
    let [memory, cpu, io] = ns.map(|ns| ns as f64 / 1e9);
    TaskWaits { memory, cpu, io }
}

fn add(sum: &mut Sum, more: Sum) {
    sum.count += more.count;
    sum.ns += more.ns;
    sum.longest_ns = sum.longest_ns.max(more.longest_ns);
}

/// A command as the kernel keeps it: ended by zeros.
fn command(bytes: [u8; COMMAND]) -> String {
    let length = bytes.iter().position(|it| *it == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// With its time in nanoseconds, exactly.
fn waiter(
    resource: Resource,
    path: Option<String>,
    name: [u8; COMMAND],
    cause: Cause,
    sum: Sum,
) -> (u64, WaiterReading) {
    let reading = WaiterReading {
        resource,
        path,
        command: command(name),
        cause,
        count: sum.count,
        seconds: sum.ns as f64 / 1e9,
        longest_seconds: sum.longest_ns as f64 / 1e9,
    };
    (sum.ns, reading)
}

fn runner(path: Option<String>, name: [u8; COMMAND], sum: Sum) -> RunnerReading {
    RunnerReading {
        path,
        command: command(name),
        seconds: sum.ns as f64 / 1e9,
    }
}

fn most(mut runners: Vec<RunnerReading>) -> Vec<RunnerReading> {
    runners.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    runners.truncate(NAMED);
    runners
}

fn longest(mut waiters: Vec<WaiterReading>) -> Vec<WaiterReading> {
    waiters.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    waiters.truncate(NAMED);
    waiters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_at_its_first_zero_and_may_be_any_bytes() {
        assert_eq!(command(*b"dd\0rest of what "), "dd");
        assert_eq!(command(*b"sixteen-bytes-ok"), "sixteen-bytes-ok");
        assert_eq!(command([0xff; 16]).chars().count(), 16);
    }

    fn waits(ns: &[u64]) -> HashMap<Who, Sum> {
        let who = (1, [0; COMMAND], Cause::Refault);
        let sum = |ns: &u64| Sum {
            count: 1,
            ns: *ns,
            longest_ns: *ns,
        };
        ns.iter().map(|ns| (who, sum(ns))).collect()
    }

    #[test]
    fn a_wait_over_several_windows_is_counted_in_each_for_its_part() {
        let mut counted = HashMap::new();
        let mut total = 0;
        // It is under way for 5, 15 and 25, ends with 30, and another of 4 is in one window.
        // Between two readings it is in neither, once.
        let readings: [(&[u64], &[u64]); 6] = [
            (&[5], &[]),
            (&[15], &[]),
            (&[25], &[]),
            (&[], &[]),
            (&[], &[30]),
            (&[], &[4]),
        ];
        for ((open, ended), wanted) in readings.into_iter().zip([5, 10, 10, 0, 5, 4]) {
            let found = window(&mut counted, waits(open), waits(ended));
            let found: u64 = found.values().map(|sum| sum.ns).sum();
            assert_eq!(found, wanted, "{open:?} {ended:?}");
            total += found;
        }
        assert_eq!(total, 34);
        assert_eq!(counted.len(), 0);
    }

    #[test]
    fn who_waited_longest_comes_first() {
        let sum = |ns| Sum {
            count: 1,
            ns,
            longest_ns: ns,
        };
        let of = |name: &[u8; COMMAND], ns| {
            let (_, waiter) = waiter(Resource::Memory, None, *name, Cause::Refault, sum(ns));
            waiter
        };
        let waiters = longest(vec![
            of(b"brief\0\0\0\0\0\0\0\0\0\0\0", 1),
            of(b"long\0\0\0\0\0\0\0\0\0\0\0\0", 9),
        ]);
        let commands: Vec<_> = waiters.iter().map(|it| it.command.as_str()).collect();
        assert_eq!(commands, ["long", "brief"]);
    }
}
