//! Measuring: what procfs and the tree of cgroups say, which needs no BPF, and what the
//! probes add to it.

mod cgroup_triggers;
mod look;
mod named;
mod names;
mod node;
mod probed;
mod tracer;
mod tree;
mod triggers;

pub(super) use self::named::ancestors;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use self::{
    look::Look,
    node::Node,
    probed::Probed,
    tracer::TraceReading,
    tree::{CpuSets, Scanned, Tree},
    triggers::PsiTriggers,
};
use super::support::Plan;
use super::{Settings, causes::Cause, support};
use crate::{
    ailments::{durations::Durations, ranking::Ranks},
    kernel::{
        cgroup::{IoMax, IoStat},
        machine::{self, Memory, MemoryEvents, with_tolerance},
        mounts::Mount,
        pressure::{Resource, Stall},
        sleepers::Sleeping,
    },
    model::{Missing, ProbeReport, ProgramStats},
    node::{Directory, Name, PodLabels},
    wakeup::WakeUp,
};

/// What one tick measured. All that is of a window is since the reading before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Length of the window, seconds.
    pub window_seconds: f64,
    /// CPUs that are there.
    pub cpus: u32,
    /// CPU time that the agent itself took, seconds: much at its start.
    pub agent_seconds: f64,
    /// Whether cgroups have their CPU controller in version 1, and its quotas could not be read.
    #[serde(default)]
    pub cpu_on_version_1: bool,
    /// Whether cgroups have their memory controller in version 1, where limits are not read.
    #[serde(default)]
    pub memory_on_version_1: bool,
    /// The node as a whole.
    pub node: NodeReading,
    /// Whether the kernel calls when tasks of the node wait, by resource, and how often
    /// it has; empty where it does not.
    #[serde(default)]
    pub armed: Vec<(Resource, u64)>,
    /// Cgroups for which the kernel calls as well.
    #[serde(default)]
    pub armed_cgroups: u64,
    /// Cgroups that waited or did much in the window, and those above them.
    pub cgroups: Vec<CgroupReading>,
    /// The scan that found them; absent where no tree has pressure files.
    pub scan: Option<ScanReading>,
    /// Where the kernel counted more stall than there can have been: cgroups, or resources of the
    /// node. These counts are left out.
    #[serde(default)]
    pub impossible: Vec<String>,
    /// Cgroups that metrics show, with what they have waited since they are shown.
    pub shown: Vec<(String, Waits)>,
    /// What all others have waited since the agent began.
    pub other: Waits,
    /// What the probes counted; absent where none is attached.
    #[serde(default)]
    pub probed: Option<ProbedReading>,
    /// What Kubernetes calls those of these cgroups that are a pod's, by path.
    #[serde(default)]
    pub names: BTreeMap<String, Name>,
    /// The labels of pods that go along with them.
    #[serde(default)]
    pub pod_labels: PodLabels,
}

/// What the probes counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbedReading {
    /// Durations of waits for memory since the agent began.
    pub memory: Durations,
    /// For how long tasks waited, added up task by task, by cause.
    pub causes: Vec<CauseReading>,
    /// Who waited longest in the window, by cgroup, command and cause.
    pub waiters: Vec<WaiterReading>,
    /// Who ran longest while tasks were traced, by cgroup and command.
    pub runners: Vec<RunnerReading>,
    /// The trace over tasks, without which nobody is known to wait for CPUs and disks.
    pub trace: TraceReading,
    /// What the tasks of cgroups that metrics show have waited since they are shown, seconds.
    pub shown: Vec<(String, TaskWaits)>,
    /// What those of all others have.
    pub other: TaskWaits,
    /// Whether each wait for memory was counted with its cause: the probe is attached.
    #[serde(default)]
    pub memory_causes: bool,
    /// Events lost since the agent began, by reason.
    pub lost: Vec<(String, u64)>,
}

/// Waits of tasks, added up task by task: two that wait for a second have waited for two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskWaits {
    /// For memory, seconds.
    pub memory: f64,
    /// For a CPU, seconds: while tasks were traced.
    pub cpu: f64,
    /// For a disk, seconds: while tasks were traced.
    pub io: f64,
}

impl ProbedReading {
    /// The cgroups that ran and waited longest, in turn.
    fn cgroups(&self) -> impl Iterator<Item = &str> {
        let (runners, waiters) = (&self.runners, &self.waiters);
        (0..runners.len().max(waiters.len())).flat_map(|i| {
            let runner = runners.get(i).and_then(|it| it.path.as_deref());
            let waiter = waiters.get(i).and_then(|it| it.path.as_deref());
            runner.into_iter().chain(waiter)
        })
    }
}

/// Tasks of one command in one cgroup that ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerReading {
    /// As of [`WaiterReading`].
    pub path: Option<String>,
    /// Their command.
    pub command: String,
    /// CPU time, seconds.
    pub seconds: f64,
}

/// For how long tasks waited by one path of the kernel, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CauseReading {
    /// What for.
    pub resource: Resource,
    /// The path.
    pub cause: Cause,
    /// Since the agent began.
    pub total: f64,
    /// In the window.
    pub window: f64,
}

/// Tasks of one command in one cgroup that waited by one path of the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaiterReading {
    /// What for.
    pub resource: Resource,
    /// The cgroup that they are in, not one below; `None` where it has gone, or is not
    /// known.
    pub path: Option<String>,
    /// Their command.
    pub command: String,
    /// The path of the kernel.
    pub cause: Cause,
    /// How often they waited.
    pub count: u64,
    /// For how long, seconds.
    pub seconds: f64,
    /// The longest time of one, seconds.
    pub longest_seconds: f64,
}

/// The node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReading {
    /// Waits since boot.
    pub total: Waits,
    /// Waits of the window.
    pub window: Waits,
    /// Whether the kernel accounts the time of interrupts.
    pub irq: bool,
    /// CPU time spent at work in the window, of all CPUs together, seconds; `None` where
    /// `/proc/stat` cannot be true.
    pub busy_seconds: Option<f64>,
    /// What all CPUs together did in the window; as for the time at work.
    #[serde(default)]
    pub cpu: Option<CpuReading>,
    /// Why the times of CPUs are not known.
    #[serde(default)]
    pub cpu_doubt: Option<String>,
    /// The CPU that interrupts took most of; as for the time at work.
    #[serde(default)]
    pub interrupted: Option<InterruptedCpu>,
    /// How often each kind of softirq ran on all CPUs in the window, most first, where that is
    /// known.
    #[serde(default)]
    pub softirqs: Vec<(String, u64)>,
    /// CPUs that the kernel does not balance tasks over (`isolcpus=`); `None` where it does not
    /// tell.
    #[serde(default)]
    pub isolated_cpus: Option<u32>,
    /// Tasks that sleep at the end of the window, or a moment before; looked for only while tasks
    /// wait for I/O and no disk is busy for as long.
    #[serde(default)]
    pub sleeping: Option<Sleeping>,
    /// Mounts that a server or a daemon answers for; as for sleeping tasks.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Events of memory management since boot.
    pub events_total: MemoryEvents,
    /// Events of the window.
    pub events: MemoryEvents,
    /// Where the memory is now.
    pub memory: Memory,
    /// Disks that did most in the window, the busiest first; `None` where the kernel shows no
    /// statistics of any disk.
    pub disks: Option<Vec<DiskReading>>,
    /// Disks that cgroups read or wrote (`io.stat`) and that have no statistics of their own: name
    /// and `major:minor`.
    #[serde(default)]
    pub uncounted: Vec<(String, String)>,
    /// The sysctls that matter, where the kernel has them.
    pub sysctls: Vec<(String, u64)>,
    /// Our own network namespace, by which a place of a sysctl is named.
    pub netns: u32,
}

/// What CPUs did in the window, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuReading {
    /// In tasks.
    pub tasks: f64,
    /// With nothing to do, or while a task waits for I/O.
    pub idle: f64,
    /// In interrupts.
    pub irq: f64,
    /// In softirqs.
    pub softirq: f64,
    /// The hypervisor ran something else.
    pub steal: f64,
}

impl CpuReading {
    /// All of it, seconds.
    pub fn total(&self) -> f64 {
        self.tasks + self.idle + self.irq + self.softirq + self.steal
    }
}

/// A CPU that interrupts take from its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterruptedCpu {
    /// Its number.
    pub cpu: u32,
    /// What it did in the window.
    pub time: CpuReading,
    /// How often each kind of softirq ran on it in the window, most first, where that is known.
    pub softirqs: Vec<(String, u64)>,
}

/// What a disk did in the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskReading {
    /// Its name, as `vda`.
    pub name: String,
    /// `major:minor`
    pub device: String,
    /// Time for which it had something to do, seconds.
    pub busy_seconds: f64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests completed.
    #[serde(default)]
    pub completed: u64,
    /// Requests in flight at the end of the window.
    #[serde(default)]
    pub in_flight: u64,
    /// Whether requests were in flight at the begin and the end, and none was completed between.
    #[serde(default)]
    pub stuck: bool,
    /// The disks that it lies on, as those of a logical volume.
    #[serde(default)]
    pub below: Vec<String>,
}

/// For how long tasks waited, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    /// For a CPU.
    pub cpu: Wait,
    /// For memory.
    pub memory: Wait,
    /// For a disk.
    pub io: Wait,
    /// For interrupts to leave the CPU.
    pub irq: Wait,
}

/// For how long tasks waited for one thing, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// At least one of them.
    pub some: f64,
    /// All that had something to do.
    pub full: f64,
}

/// What a cgroup, with those below it, waited for and did in the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CgroupReading {
    /// Path below the root of the tree: `/system.slice/ssh.service`.
    pub path: String,
    /// What its figures are of where it was not read at the begin of the window: the time since,
    /// seconds. Nobody is judged by these.
    #[serde(default)]
    pub window_seconds: Option<f64>,
    /// For how long its tasks waited.
    pub waits: Waits,
    /// CPU time, of all CPUs together, seconds.
    pub cpu_seconds: f64,
    /// The part of it that is of no cgroup below, as far as those were looked at.
    pub own_cpu_seconds: f64,
    /// Its own quota kept it from running: time of all CPUs together, seconds.
    pub throttled_seconds: f64,
    /// Periods of the quota in which it ran; zero where that is not known.
    #[serde(default)]
    pub periods: u64,
    /// Periods at whose end the quota was used up.
    pub throttled_periods: u64,
    /// Whether its quota is in the tree of version 1.
    #[serde(default)]
    pub quota_on_version_1: bool,
    /// CPUs that the quota is worth; read only where it was used up.
    pub quota_cpus: Option<f64>,
    /// CPUs that its tasks may use; read only where they waited for one.
    #[serde(default)]
    pub allowed_cpus: Option<u32>,
    /// Those of them that the kernel does not balance tasks over; `None` where it does not tell.
    #[serde(default)]
    pub isolated_cpus: Option<u32>,
    /// The part of the window for which they were idle, on average; `None` where /proc/stat does not
    /// tell.
    #[serde(default)]
    pub allowed_idle: Option<f64>,
    /// What the memory controller says; read only while somebody waits for memory or I/O.
    pub memory: Option<MemoryReading>,
    /// What it read and wrote, by `major:minor`; as for memory.
    pub io: IoStat,
    /// `io.max`, by `major:minor`; as for memory.
    pub io_max: IoMax,
}

/// A cgroup's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReading {
    /// Bytes charged now.
    pub current: u64,
    /// `memory.high`, bytes.
    pub high: Option<u64>,
    /// `memory.max`, bytes.
    pub max: Option<u64>,
    /// Bytes waiting to be written, or being written, now.
    pub dirty: u64,
    /// Bytes of file pages that were not used lately, which reclaim finds without swap.
    #[serde(default)]
    pub inactive_file: Option<u64>,
    /// What happened in the window; absent where it was not read at its begin.
    pub window: Option<MemoryWindow>,
}

/// What happened to a cgroup's memory in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryWindow {
    /// Times that its own `memory.high` made tasks reclaim.
    pub high_events: u64,
    /// Times that its own `memory.max` did.
    pub max_events: u64,
    /// Times that no memory could be found within its own limit.
    pub oom_events: u64,
    /// Page faults.
    pub faults: u64,
    /// Pages needed again soon after they had been reclaimed.
    pub refaults: u64,
    /// Pages reclaimed from it.
    pub reclaimed: u64,
    /// Pages that were looked at for that.
    #[serde(default)]
    pub scanned: u64,
}

/// A scan of the tree of cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanReading {
    /// Time it took, seconds.
    pub seconds: f64,
    /// Cgroups that were read: branches in which nobody waits and nothing runs are passed over.
    pub visited: u64,
    /// Cgroups that are known.
    pub known: u64,
    /// Whether it reached all that it should have.
    pub complete: bool,
    /// Cgroups that may have waited or run, and were not read both at the begin and the end of the
    /// window.
    #[serde(default)]
    pub unread: u64,
    /// Whether one of these can have waited for as long as a finding takes, by what the cgroup
    /// above it waited; `None` in readings of old versions.
    #[serde(default)]
    pub may_stall: Option<bool>,
}

impl Waits {
    /// The wait for a resource.
    pub const fn of(&self, resource: Resource) -> Wait {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
            Resource::Io => self.io,
            Resource::Irq => self.irq,
        }
    }

    fn new(stalls: &Stalls) -> Self {
        let [cpu, memory, io, irq] = stalls.map(Wait::from);
        Self {
            cpu,
            memory,
            io,
            irq,
        }
    }
}

impl From<Stall> for Wait {
    fn from(stall: Stall) -> Self {
        Self {
            some: stall.some.as_secs_f64(),
            full: stall.full.as_secs_f64(),
        }
    }
}

impl CgroupReading {
    /// Whether its figures are of more than the window.
    pub const fn is_older(&self) -> bool {
        self.window_seconds.is_some()
    }

    /// Times that its own limits made its tasks reclaim in the window.
    pub fn limit_events(&self) -> u64 {
        let window = self.memory.and_then(|memory| memory.window);
        window.map_or(0, |window| {
            window.high_events.saturating_add(window.max_events)
        })
    }

    /// Pages that it took in the window, as far as is known: it faulted them in.
    pub fn allocated(&self) -> u64 {
        let window = self.memory.and_then(|memory| memory.window);
        window.map_or(0, |window| window.faults.saturating_add(window.refaults))
    }

    /// Bytes read and written in the window.
    pub fn io_bytes(&self) -> u64 {
        let disks = self.io.values();
        let bytes = disks.map(|it| it.read_bytes.saturating_add(it.written_bytes));
        bytes.fold(0, u64::saturating_add)
    }
}

/// A disk explains waits if it was busy for at least this part of them: while a task waits for
/// it, it has something to do.
const EXPLAINS: f64 = 0.5;

impl NodeReading {
    /// Leaves out stalls of more time than there was, and returns the names of their resources.
    fn leave_out_what_cannot_be(&mut self, window: Duration, stalls: &mut Stalls) -> Vec<String> {
        let longest = with_tolerance(window);
        let mut impossible = Vec::new();
        for (resource, stall) in Resource::ALL.into_iter().zip(stalls.iter_mut()) {
            if stall.some > longest || stall.full > longest {
                *stall = Stall::default();
                impossible.push(format!("{} of the node", resource.name()));
            }
        }
        self.window = Waits::new(stalls);
        impossible
    }

    /// The disk that was busy while tasks waited for so many seconds, if one was.
    pub fn disk_that_explains(&self, waited: f64) -> Option<&DiskReading> {
        let mut disks = self.disks_that_explain(waited);
        disks.find(|disk| !disk.stuck)
    }

    /// All disks that were: a logical volume, and those that it lies on.
    pub fn disks_that_explain(&self, waited: f64) -> impl Iterator<Item = &DiskReading> {
        let disks = self.disks.iter().flatten();
        disks.filter(move |disk| disk.busy_seconds >= EXPLAINS * waited)
    }

    /// The disk that had requests and completed none, if there is one.
    pub fn stuck_disk(&self) -> Option<&DiskReading> {
        self.disks.iter().flatten().find(|disk| disk.stuck)
    }

    /// A sysctl's value when the reading was taken.
    pub fn sysctl(&self, key: &str) -> Option<u64> {
        let (_, value) = self.sysctls.iter().find(|(name, _)| name == key)?;
        Some(*value)
    }
}

impl Reading {
    /// Puts the names of pods and containers to their cgroups.
    pub(super) fn identify(&mut self, directory: &Directory) {
        let looked_at = self.cgroups.iter().map(|it| it.path.as_str());
        let named = looked_at
            .chain(self.scopes())
            .filter_map(|path| Some((path.to_owned(), directory.of_cgroup(path)?)));
        self.names = named.collect();
        self.pod_labels = directory.labels().clone();
    }

    /// The cgroups with figures of the window.
    pub(super) fn current(&self) -> impl Iterator<Item = &CgroupReading> {
        self.cgroups.iter().filter(|it| !it.is_older())
    }

    /// The cgroups that have series of their own, in any metric.
    pub(super) fn scopes(&self) -> BTreeSet<&str> {
        let waits = self.shown.iter().map(|(path, _)| path.as_str());
        let probed = self.probed.iter().flat_map(|probed| &probed.shown);
        waits.chain(probed.map(|(path, _)| path.as_str())).collect()
    }
}

/// Stalls by resource, in the order of [`Resource::ALL`].
type Stalls = [Stall; Resource::ALL.len()];

/// Stalls as counters of microseconds: some and full of each resource.
type Microseconds = [u64; 2 * Resource::ALL.len()];

/// The running measurement.
#[derive(Debug)]
pub struct Measurement {
    node: Node,
    triggers: PsiTriggers,
    tree: Option<Tree>,
    /// The tree of version 1 that has the CPU controller, where it can be read.
    cpu_v1: Option<Tree>,
    look: Look,
    probed: Result<Probed, Missing>,
    /// The shares of a window from which on it matters who waits for CPUs and disks.
    limits: [f64; 2],
    /// What metrics show of the cgroups.
    shown: Ranks<String, { 2 * Resource::ALL.len() }>,
    /// CPUs that were there at the start.
    cpus: u32,
    cpu_on_version_1: bool,
    memory_on_version_1: bool,
    /// CPU time of the agent when it was last asked for.
    agent: Duration,
    probes: Vec<ProbeReport>,
}

impl Measurement {
    /// Takes the first look, from which the first reading counts.
    pub(super) fn begin(plan: Plan, settings: &Settings, wakeup: &WakeUp) -> anyhow::Result<Self> {
        // Where the node cannot be read, nothing is attached.
        drop(Node::begin()?);
        let mut probes = vec![ProbeReport {
            name: "node".to_owned(),
            hook: Some("procfs".to_owned()),
            missing: Vec::new(),
        }];
        match &plan.cgroups {
            Ok(found) => {
                probes.push(ProbeReport {
                    name: "cgroups".to_owned(),
                    hook: Some("cgroup2".to_owned()),
                    missing: Vec::new(),
                });
                let controllers = support::on_version_1(found);
                probes.extend(
                    controllers.map(|missing| ProbeReport::not_measured("controllers", &missing)),
                );
            }
            Err(missing) => probes.push(ProbeReport::not_measured("cgroups", missing)),
        }
        let probed =
            Probed::attach(&plan, settings, wakeup).map_err(|error| Missing::all_probes(&error));
        if let Err(missing) = &probed {
            let planned = plan.rare.iter().chain([&plan.tasks]);
            let names = planned.map(|planned| planned.probe.name);
            probes.extend(names.map(|name| ProbeReport::not_measured(name, missing)));
        }
        // The first window begins here, after all that took long.
        let tree = plan.root().map(|root| Tree::begin(root, settings));
        let cpu_v1 = plan
            .cpu_v1
            .clone()
            .and_then(|root| Tree::of_version_1(root, settings));
        let node = Node::begin()?;
        Ok(Self {
            node,
            triggers: PsiTriggers::new(settings, plan.root(), wakeup),
            cpu_on_version_1: plan.cpu_on_version_1 && cpu_v1.is_none(),
            memory_on_version_1: plan.memory_on_version_1,
            tree,
            cpu_v1,
            look: Look::default(),
            probed,
            limits: [settings.cpu_ratio, settings.io_ratio],
            shown: Ranks::new(settings.top_cgroups as usize),
            cpus: plan.cpus,
            agent: agent_time(),
            probes,
        })
    }

    pub(super) fn probes(&self) -> Vec<ProbeReport> {
        let off = self.tree.as_ref().and_then(Tree::switched_off);
        let off = off.map(|missing| ProbeReport::not_measured("cgroup_pressure", &missing));
        let own = self.probes.iter().cloned();
        let probed = self.probed.iter().flat_map(Probed::reports);
        own.chain(probed)
            .chain(self.triggers.reports())
            .chain(off)
            .collect()
    }

    pub(super) fn measure(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let online = machine::cpus("online").ok();
        let (mut node, mut stalls) = self.node.read(window, online.as_ref())?;
        let mut impossible = node.leave_out_what_cannot_be(window, &mut stalls);
        let cpus = online.as_ref().map_or(self.cpus, machine::count).max(1);
        let isolated = machine::cpus("isolated").ok();
        node.isolated_cpus = isolated.as_ref().map(machine::count);
        let sets = CpuSets {
            isolated: isolated.as_ref(),
            idle: Some(self.node.idle()),
        };
        // Who waits or runs by the trace may be where no scan has been for long.
        if let (Some(tree), Ok(probed)) = (&mut self.tree, &mut self.probed) {
            let paths = probed.traced(tree)?;
            tree.prefer(paths.iter().map(String::as_str));
        }
        let scan = |tree: &mut Tree| tree.scan(window, cpus, &stalls, sets);
        let scanned = self.tree.as_mut().map(scan);
        let of_version_1 = self.cpu_v1.as_mut().map(scan);
        let pressure_v1 = self.cpu_v1.as_ref().is_some_and(Tree::has_pressure);
        let has_scan = scanned.is_some() || pressure_v1;
        let mut scanned = match (scanned, of_version_1) {
            (Some(scanned), Some(v1)) => scanned.with_quotas(v1),
            (Some(scanned), None) => scanned,
            (None, Some(v1)) => v1.of_version_1(),
            (None, None) => Scanned::default(),
        };
        impossible.append(&mut scanned.impossible);
        self.count(&scanned);
        self.triggers.follow(&scanned, window);
        let called = self.triggers.has_called() || self.stalls(&node, window);
        let probed = match &mut self.probed {
            Ok(probed) => probed.read(&scanned, self.tree.as_ref(), called)?,
            Err(_) => None,
        };
        // Who waited or ran by the probes may be among the cgroups that the scan did not reach.
        if let Some((tree, probed)) = self.tree.as_mut().zip(probed.as_ref()) {
            tree.prefer(probed.cgroups());
        }
        if self.needs_sleepers(&node, window) {
            self.look.put_into(&mut node);
        }
        let used = scanned.cgroups.iter().flat_map(|it| it.io.keys());
        node.uncounted = self.node.without_statistics(&used.collect());
        let shown = self.shown.shown().into_iter();
        let agent = agent_time();
        let before = std::mem::replace(&mut self.agent, agent);
        Ok(Reading {
            window_seconds: window.as_secs_f64(),
            cpus,
            cpu_on_version_1: self.cpu_on_version_1,
            memory_on_version_1: self.memory_on_version_1,
            agent_seconds: agent.saturating_sub(before).as_secs_f64(),
            node,
            armed: self.triggers.calls(),
            armed_cgroups: self.triggers.cgroups(),
            cgroups: scanned.cgroups,
            scan: has_scan.then_some(scanned.reading),
            impossible,
            shown: shown
                .map(|(path, counters)| (path, waits(counters)))
                .collect(),
            other: waits(self.shown.other()),
            probed,
            names: BTreeMap::new(),
            pod_labels: PodLabels::default(),
        })
    }

    /// Whether tasks of the node waited for CPUs or disks for so long that a verdict asks who.
    fn stalls(&self, node: &NodeReading, window: Duration) -> bool {
        let share = |wait: Wait| wait.some / window.as_secs_f64().max(f64::EPSILON);
        let [cpu, io] = self.limits;
        share(node.window.cpu) > cpu || share(node.window.io) > io
    }

    /// Whether tasks waited for I/O for longer than any disk was busy.
    fn needs_sleepers(&self, node: &NodeReading, window: Duration) -> bool {
        let [_, limit] = self.limits;
        let waited = node.window.io.some;
        waited > limit * window.as_secs_f64() && node.disk_that_explains(waited).is_none()
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probed.iter().flat_map(Probed::programs).collect()
    }

    fn count(&mut self, scanned: &Scanned) {
        let now = Instant::now();
        for (path, stalls, much) in &scanned.stalls {
            let new = microseconds(stalls);
            if *much {
                self.shown.count(now, path.clone(), new);
            } else {
                self.shown.count_aside(path, new);
            }
        }
    }
}

/// CPU time of this process so far.
fn agent_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn microseconds(stalls: &Stalls) -> Microseconds {
    let number = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    std::array::from_fn(|i| {
        let stall = stalls[i / 2];
        number(if i % 2 == 0 { stall.some } else { stall.full })
    })
}

fn waits(counters: Microseconds) -> Waits {
    let stall = |resource: usize| Stall {
        some: Duration::from_micros(counters[2 * resource]),
        full: Duration::from_micros(counters[2 * resource + 1]),
    };
    Waits::new(&std::array::from_fn(stall))
}
