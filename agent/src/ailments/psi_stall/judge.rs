//! The verdict: a pure function of a reading and the limits.

mod cpu;
mod io;
mod memory;
mod probed;

use super::{
    Settings,
    measure::{CgroupReading, Reading, Wait},
};
use crate::{
    kernel::pressure::Resource,
    model::{Evidence, Finding, Party, Severity},
    node::Owner,
};

/// Whoever begins to run or to write on a busy node brings them about.
pub(super) const MEMORY_RECLAIM: &str = "memory_reclaim";
pub(super) const MEMORY_LIMIT: &str = "memory_limit";
pub(super) const IO_STALL: &str = "io_stall";
pub(super) const CPU_THROTTLED: &str = "cpu_throttled";
pub(super) const CPU_CONTENTION: &str = "cpu_contention";
pub(super) const IRQ_PRESSURE: &str = "irq_pressure";

/// Parties that a finding names.
const NAMED: usize = 5;

/// What is wrong, worst first.
pub(super) fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
    let judge = Judge { reading, settings };
    let found = [
        memory::reclaim(judge),
        memory::limit(judge),
        io::stall(judge),
        cpu::throttled(judge),
        cpu::contention(judge),
        cpu::interrupts(judge),
    ];
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    // The sort is stable: of two that are as bad the order is that of the kinds.
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// What a user should know of the measuring.
pub(super) fn notes(reading: &Reading, settings: &Settings) -> Vec<String> {
    let idle_io_uring = io::note(Judge { reading, settings });
    let starting = cpu::agent_is_starting(reading).then(|| {
        format!(
            "the agent itself used {:.1} s of CPU time for its start: this reading does not judge \
             waits for a CPU",
            reading.agent_seconds
        )
    });
    let impossible = (!reading.impossible.is_empty()).then(|| {
        format!(
            "the kernel counted more stall than there was time, which is left out: {}",
            reading.impossible.join(", ")
        )
    });
    let older = older(reading);
    let notes = starting.into_iter().chain(impossible).chain(older);
    notes.chain(idle_io_uring).collect()
}

/// The cgroups with older figures, the oldest first.
fn older(reading: &Reading) -> Option<String> {
    let older = reading.cgroups.iter();
    let mut older: Vec<_> = older
        .filter_map(|it| Some((it.window_seconds?, &it.path)))
        .collect();
    older.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let named = older.iter().take(NAMED);
    let named: Vec<_> = named
        .map(|(seconds, path)| format!("{path} ({seconds:.0} s)"))
        .collect();
    (!older.is_empty()).then(|| {
        format!(
            "this reading judges nobody by the figures of {}, which are of a longer time than its \
             own: {}{}. The next scan reads these cgroups first",
            match older.len() {
                1 => "1 cgroup".to_owned(),
                count => format!("{count} cgroups"),
            },
            named.join(", "),
            if older.len() > NAMED { ", ..." } else { "" }
        )
    })
}

/// What a reading without findings cannot have shown.
pub(super) fn unknown(reading: &Reading, settings: &Settings) -> Vec<String> {
    let judge = Judge { reading, settings };
    let node = &reading.node;
    let cpus = (node.cpu.is_none() || node.busy_seconds.is_none() || node.interrupted.is_none())
        .then(|| {
            format!(
                "cannot tell whether interrupts or steal take CPUs from tasks: {}",
                match &node.cpu_doubt {
                    Some(why) => why,
                    None => "the times of /proc/stat are not known",
                }
            )
        });
    let no_scan = reading.scan.is_none().then(|| {
        "cannot tell whether tasks of a single cgroup wait: no tree of cgroups with pressure files \
         can be read, and the pressure of the node does not show each"
            .to_owned()
    });
    // Where the cgroups above the others hardly waited, these did not wait for too long.
    let cut = reading.scan;
    let cut = cut.filter(|scan| !scan.complete && scan.may_stall != Some(false));
    let cut = cut.map(|scan| {
        format!(
            "cannot tell whether tasks of all cgroups wait: the scan of their tree did not read {} \
             of {} cgroups for this reading. The next scans do. scan_cpu_ratio, scan_timeout and \
             max_cgroups in [ailments.psi_stall] limit it",
            scan.unread.max(1),
            scan.known
        )
    });
    let left_out = reading.impossible.iter();
    let left_out = left_out.filter_map(|it| it.strip_suffix(" of the node"));
    let left_out = left_out.map(|resource| {
        format!(
            "cannot tell whether tasks of the node wait: its pressure of {resource} is not true"
        )
    });
    let quotas = reading.cpu_on_version_1.then(|| {
        "cannot tell whether CPU quotas hold tasks: the CPU controller is mounted in version 1, and \
         its quotas could not be read"
            .to_owned()
    });
    let kswapd = memory::hidden_by_kswapd(judge).then(|| {
        "cannot tell how long tasks wait for memory: kswapd was at work, which the kernel counts \
         as waiting, and allocations reclaimed beside it. The probe `memory` tells them apart"
            .to_owned()
    });
    let all = cpus.into_iter().chain(no_scan).chain(cut).chain(left_out);
    all.chain(quotas).chain(kswapd).collect()
}

/// A reading with the limits to hold it against.
#[derive(Clone, Copy, Debug)]
struct Judge<'r> {
    reading: &'r Reading,
    settings: &'r Settings,
}

impl<'r> Judge<'r> {
    fn limit(self, resource: Resource) -> f64 {
        match resource {
            Resource::Cpu | Resource::Irq => self.settings.cpu_ratio,
            Resource::Memory => self.settings.memory_ratio,
            Resource::Io => self.settings.io_ratio,
        }
    }

    /// A time of the window as a part of it.
    fn share(self, seconds: f64) -> f64 {
        (seconds / self.reading.window_seconds.max(f64::EPSILON)).min(1.0)
    }

    fn node(self, resource: Resource) -> Wait {
        self.reading.node.window.of(resource)
    }

    /// Whether the node as a whole waited for too long.
    fn node_stalls(self, resource: Resource) -> bool {
        self.share(self.node(resource).some) > self.limit(resource)
    }

    /// The cgroups that waited for too long, where none below them has: those are who
    /// really waits. The longest wait first.
    fn stalled(self, resource: Resource) -> Vec<&'r CgroupReading> {
        let waits = |it: &CgroupReading| it.waits.of(resource).some;
        let mut stalled = self.lowest(|it| self.share(waits(it)) > self.limit(resource));
        stalled.sort_by(|a, b| waits(b).total_cmp(&waits(a)));
        stalled
    }

    /// The cgroups of which something holds that holds of none below them.
    fn lowest(self, holds: impl Fn(&CgroupReading) -> bool) -> Vec<&'r CgroupReading> {
        let all: Vec<_> = self.cgroups().filter(|it| holds(it)).collect();
        let lowest = |it: &&CgroupReading| !all.iter().any(|other| is_below(other, it));
        all.iter().copied().filter(lowest).collect()
    }

    /// The cgroups with most of something, those left out that have it from one below.
    fn most(self, of: impl Fn(&CgroupReading) -> f64, floor: f64) -> Vec<(&'r CgroupReading, f64)> {
        let mut most: Vec<_> = self
            .lowest(|it| of(it) > floor)
            .into_iter()
            .map(|it| (it, of(it)))
            .collect();
        most.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        most.truncate(NAMED);
        most
    }

    /// A cgroup and those above it, as far as the reading has them, the nearest first.
    fn upwards(self, path: &'r str) -> impl Iterator<Item = &'r CgroupReading> {
        let paths = std::iter::once(path).chain(super::measure::ancestors(path));
        paths.filter_map(move |path| self.find(path))
    }

    fn find(self, path: &str) -> Option<&'r CgroupReading> {
        self.cgroups().find(|it| it.path == path)
    }

    /// The cgroups with figures of the window itself.
    fn cgroups(self) -> impl Iterator<Item = &'r CgroupReading> {
        self.reading.current()
    }

    /// How bad a stall is for who waits longest, or for the node.
    fn severity(self, resource: Resource, victims: &[&CgroupReading]) -> Severity {
        let longest = victims.iter().map(|it| it.waits.of(resource).some);
        let longest = longest.fold(0.0, f64::max);
        let longest = if victims.is_empty() {
            self.node(resource).some
        } else {
            longest
        };
        // *full* of the node's CPUs means nothing, and is no zero on Linux 5.13 to 5.18
        // (890d550d7dbac, "sched/psi: report zeroes for CPU full at the system level").
        let whole_node = resource != Resource::Cpu
            && self.share(self.node(resource).full) > self.limit(resource);
        if self.share(longest) >= self.settings.critical_ratio || whole_node {
            Severity::Critical
        } else {
            Severity::Warning
        }
    }

    /// The part of the time for which tasks of a cgroup, or of the node, waited.
    fn pressure(self, resource: Resource, victims: &[&CgroupReading]) -> Evidence {
        let (scope, seconds) = match victims.first() {
            Some(worst) => (worst.path.as_str(), worst.waits.of(resource).some),
            None => (NODE, self.node(resource).some),
        };
        Evidence {
            metric: format!(
                "rate(nodemedic_psi_stall_seconds_total{{resource=\"{}\",stall=\"some\",\
                 cgroup=\"{}\"}})",
                resource.name(),
                label_value(scope)
            ),
            value: self.share(seconds),
            limit: Some(self.limit(resource)),
        }
    }

    /// Those who wait; the tasks outside of all cgroups where no cgroup is known to.
    fn victims(self, resource: Resource, stalled: &[&'r CgroupReading]) -> Vec<Party> {
        let waited = |seconds: f64| {
            format!(
                "waited for {} for {:.0} % of the time",
                wanted(resource),
                100.0 * self.share(seconds)
            )
        };
        if stalled.is_empty() {
            let share = waited(self.node(resource).some);
            return vec![Party {
                who: "tasks of this node".to_owned(),
                share: share + &self.commands(resource, None),
            }];
        }
        let stalled = stalled.iter().take(NAMED);
        let party = |it: &&'r CgroupReading| Party {
            who: self.who(&it.path),
            share: waited(it.waits.of(resource).some) + &self.commands(resource, Some(&it.path)),
        };
        stalled.map(party).collect()
    }

    /// A cgroup, as an operator would look it up.
    fn who(self, path: &str) -> String {
        if let Some(name) = self.reading.names.get(path) {
            return format!("{name}, cgroup {path}");
        }
        match Owner::of(path).to_string() {
            owner if owner.is_empty() => format!("cgroup {path}"),
            owner => format!("{owner}, cgroup {path}"),
        }
    }

    /// Who waits, in words for a summary.
    fn subject(self, stalled: &[&CgroupReading]) -> String {
        match stalled {
            [] => "tasks of this node".to_owned(),
            [one] => format!("tasks of {}", self.who(&one.path)),
            [first, rest @ ..] => {
                format!("tasks of {} and {} more", self.who(&first.path), rest.len())
            }
        }
    }
}

/// The scope of the node as a whole, as labels have it.
pub(super) const NODE: &str = "node";

/// A label's value as a query has it between quotes. The name of a cgroup may have any of these.
fn label_value(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// What a resource is called in a sentence.
const fn wanted(resource: Resource) -> &'static str {
    match resource {
        Resource::Cpu => "a CPU",
        Resource::Memory => "memory",
        Resource::Io => "I/O",
        Resource::Irq => "interrupts",
    }
}

fn is_below(cgroup: &CgroupReading, above: &CgroupReading) -> bool {
    cgroup.path != above.path && is_at_or_below(&cgroup.path, &above.path)
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A counter of the window beside the pressure, where it agrees.
fn counter(metric: &str, value: u64) -> Option<Evidence> {
    (value > 0).then(|| Evidence {
        metric: metric.to_owned(),
        value: value as f64,
        limit: None,
    })
}

/// Bytes as people write them.
fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.into_iter().find(|(_, size)| bytes >= *size);
    match unit {
        Some((name, size)) => format!("{:.1} {name}", bytes as f64 / size as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests;
