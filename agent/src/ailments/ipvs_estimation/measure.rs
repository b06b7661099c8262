//! Measuring: the baseline that needs no BPF, and what the probes count.

mod baseline;
mod cost;
mod probed;
mod recent;
mod threads;
mod tracer;

use std::time::Duration;

use ebpf::ipvs_estimation::Context;
use serde::{Deserialize, Serialize};

use self::{
    baseline::Baseline,
    cost::Calibration,
    probed::{PassesByKey, Probed},
};
pub(super) use self::{
    cost::{Cost, SOURCE as COST_SOURCE},
    recent::Interval,
};
use super::{
    Settings,
    support::{PASSES, Plan},
};
use crate::{
    ailments::durations::Durations,
    kernel::ipvs::Scan,
    model::{Missing, ProbeReport, ProgramStats},
};

/// The estimator comes back to each service this often, seconds.
const PERIOD: f64 = 2.0;

/// What one tick measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Time since the reading before, seconds: what `window` counts were counted in.
    pub window_seconds: f64,
    /// Our own network namespace, which is the node's.
    pub netns: u32,
    /// In what passes run, if known.
    pub context: Option<Context>,
    /// CPUs that could be there, each of which a pass visits.
    pub possible_cpus: Option<u32>,
    /// CPUs that are.
    pub online_cpus: Option<u32>,
    /// What the kernel lets an operator set, as it is in our namespace.
    pub switches: Switches,
    /// Network namespaces with services, most estimators first.
    pub namespaces: Vec<NamespaceReading>,
    /// What one estimator costs for each possible CPU.
    pub cost: Cost,
    /// The estimator's threads, where it runs in such.
    pub threads: Option<Threads>,
    /// What the probes counted; absent where none is attached.
    pub probed: Option<ProbedReading>,
}

/// The sysctls of `net.ipv4.vs` that matter here; `None` where the kernel has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    /// Whether estimators are visited at all.
    pub run_estimation: Option<bool>,
    /// CPUs that the threads may use.
    pub est_cpulist: Option<String>,
    /// Their nice value.
    pub est_nice: Option<String>,
}

/// One network namespace with services.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamespaceReading {
    /// Inode number, as in `/proc/<pid>/ns/net`.
    pub netns: u32,
    /// A process in it, by which an operator can enter it (`nsenter -t PID -n`).
    pub pid: u32,
    /// Its services and destinations as procfs lists them.
    pub scan: Scan,
    /// Its services of IPv4 as the kernel counted them at the last pass, where that is
    /// known.
    pub counted: Option<u64>,
    /// Whether its estimators are visited; `None` where that is not known.
    pub estimating: Option<bool>,
    /// `est_nice` in it: the nice value that its threads are made with.
    #[serde(default)]
    pub est_nice: Option<i32>,
}

/// The kernel threads of the estimator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Threads {
    /// How many there are.
    pub threads: u32,
    /// Their CPU time since the agent first saw them, seconds.
    pub cpu_seconds: f64,
    /// The same since the reading before.
    pub window_cpu_seconds: f64,
    /// Of that, what those took that let all others go first: their nice value is
    /// [`LOWEST_NICE`].
    #[serde(default)]
    pub window_yielding_seconds: f64,
}

impl Threads {
    /// CPU time in the window that others may have wanted, seconds.
    pub fn taken_from_others(&self) -> f64 {
        (self.window_cpu_seconds - self.window_yielding_seconds).max(0.0)
    }
}

/// `MAX_NICE` of include/linux/sched/prio.h.
pub(super) const LOWEST_NICE: i32 = 19;

/// What the probes counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedReading {
    /// Durations of passes since the agent began.
    pub passes: Durations,
    /// Passes since the reading before.
    pub window_passes: u64,
    /// The longest of those.
    pub longest: Option<Interval>,
    /// How long receive softirqs waited while the trace was on.
    pub rx_waits: Durations,
    /// How long tasks waited.
    pub task_waits: Durations,
    /// Slow ones of the last seconds.
    pub recent: Recent,
    /// Whether waits were traced in the window.
    pub tracing: bool,
    /// Events lost since the agent began, by reason.
    pub lost: Vec<(String, u64)>,
}

/// Slow passes of the last ten seconds and slow waits of the last minute, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// Passes.
    pub passes: Vec<Interval>,
    /// From the raise of a receive softirq to its run.
    pub rx_waits: Vec<Interval>,
    /// From the interruption or the wake-up of a task to its run.
    pub task_waits: Vec<Interval>,
}

impl NamespaceReading {
    /// Services: those listed, or more where more are counted.
    pub fn services(&self) -> u64 {
        self.scan.services.max(self.counted.unwrap_or(0))
    }

    /// Destinations. Services that are not listed have as many each as those that are.
    pub fn destinations(&self) -> u64 {
        let Scan {
            services,
            destinations,
            ..
        } = self.scan;
        if services == 0 {
            return destinations;
        }
        let each = destinations as f64 / services as f64;
        (each * self.services() as f64).round() as u64
    }

    /// One for each service and destination, and one for all of the namespace.
    pub fn estimators(&self) -> u64 {
        1 + self.services() + self.destinations()
    }

    /// Whether the numbers are good enough to tell what one of them costs.
    pub fn is_known(&self) -> bool {
        self.scan.complete || self.counted >= Some(self.scan.services)
    }

    /// Whether the numbers are of all that there is.
    pub fn is_exact(&self) -> bool {
        let all_are_listed = self.counted == Some(self.scan.services);
        all_are_listed || (self.scan.complete && self.services() == self.scan.services)
    }
}

impl Reading {
    /// Seconds that a pass over a namespace's estimators takes, on this many CPUs.
    pub fn predicted(&self, namespace: &NamespaceReading, cpus: u32) -> f64 {
        namespace.estimators() as f64 * f64::from(cpus) * self.cost.ns / 1e9
    }

    /// The namespace whose pass is the longest of those that are made, with the
    /// seconds that it is predicted to take.
    pub fn longest_predicted(&self) -> Option<(&NamespaceReading, f64)> {
        let cpus = self.possible_cpus?;
        self.namespaces
            .iter()
            .filter(|namespace| namespace.estimating != Some(false))
            .map(|namespace| (namespace, self.predicted(namespace, cpus)))
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    /// A process in a network namespace with services that is not the agent's own.
    pub fn process_in(&self, netns: u32) -> Option<u32> {
        let mut others = self.namespaces.iter().filter(|it| it.netns != self.netns);
        others.find(|it| it.netns == netns).map(|it| it.pid)
    }

    /// Whether a pass keeps packets from being received.
    pub fn holds_up_packets(&self) -> bool {
        self.context == Some(Context::Softirq)
    }

    /// Events that the probes lost since the agent began, by reason.
    pub fn lost_events(&self) -> Vec<(String, u64)> {
        self.probed
            .as_ref()
            .map(|probed| probed.lost.clone())
            .unwrap_or_default()
    }
}

/// The running measurement.
#[derive(Debug)]
pub struct Measurement {
    slow: Duration,
    context: Option<Context>,
    baseline: Baseline,
    calibration: Calibration,
    probed: Result<Probed, Missing>,
    missing: Vec<ProbeReport>,
}

impl Measurement {
    /// Attaches what the plan names, as far as the kernel lets it.
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> Self {
        let probed = Probed::attach(plan, settings).map_err(|error| Missing::all_probes(&error));
        let mut missing = Vec::new();
        if let (Err(why), Some(Context::Softirq)) = (&plan.namespaces, plan.context) {
            missing.push(ProbeReport::not_measured("namespaces", why));
        }
        if let Err(why) = &probed {
            let waits = plan.waits.iter().map(|planned| planned.probe.name);
            let all = std::iter::once(PASSES).chain(waits);
            missing.extend(all.map(|name| ProbeReport::not_measured(name, why)));
        }
        Self {
            slow: settings.slow_threshold,
            context: plan.context,
            baseline: Baseline::new(plan, settings),
            calibration: Calibration::default(),
            probed,
            missing,
        }
    }

    pub(super) fn probes(&self) -> Vec<ProbeReport> {
        let attached = self.probed.iter().flat_map(Probed::reports);
        attached.chain(self.missing.iter().cloned()).collect()
    }

    pub(super) fn measure(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let mut reading = self.baseline.read(window)?;
        let mut passes = PassesByKey::default();
        if let Ok(probed) = &mut self.probed
            && let Some((counted, by_key)) = probed.read()?
        {
            reading.probed = Some(counted);
            passes = by_key;
        }
        passes.tell(&mut reading.namespaces);
        doubt(&mut reading.namespaces);
        self.calibrate(&reading, &passes);
        reading.cost = self.calibration.cost();
        let slow = self.is_slow(&reading);
        if let Ok(probed) = &mut self.probed {
            probed.trace(slow)?;
        }
        Ok(reading)
    }

    /// What the passes of the window took, for the visits that they made.
    fn calibrate(&mut self, reading: &Reading, passes: &PassesByKey) {
        let Some(cpus) = reading.possible_cpus else {
            return;
        };
        let cpus = f64::from(cpus);
        match self.context {
            Some(Context::Softirq) => {
                let known = passes.by_namespace(&reading.namespaces).into_iter();
                for (namespace, passes) in known.filter(|(it, _)| it.is_known()) {
                    let visits = passes.passes as f64 * namespace.estimators() as f64 * cpus;
                    self.calibration
                        .observe(namespace, passes.ns as f64, visits);
                }
            }
            // In pieces, each estimator once in a period.
            Some(Context::Kthread) => {
                let estimators = reading.namespaces.iter().map(NamespaceReading::estimators);
                let rounds = reading.window_seconds / PERIOD;
                let visits = estimators.sum::<u64>() as f64 * cpus * rounds;
                if let (Some(threads), Some(largest)) =
                    (&reading.threads, reading.namespaces.first())
                {
                    let ns = threads.window_cpu_seconds * 1e9;
                    self.calibration.observe(largest, ns, visits);
                }
            }
            Some(Context::Workqueue) | None => {}
        }
    }

    /// Whether a pass was slow lately, or will be.
    fn is_slow(&self, reading: &Reading) -> bool {
        let seen = reading
            .probed
            .as_ref()
            .is_some_and(|probed| !probed.recent.passes.is_empty());
        let predicted = reading
            .longest_predicted()
            .is_some_and(|(_, seconds)| seconds >= self.slow.as_secs_f64());
        seen || predicted
    }

    pub(super) fn idle(&self) -> bool {
        self.probed.as_ref().is_ok_and(Probed::idle)
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probed.iter().flat_map(Probed::programs).collect()
    }
}

/// So many services are listed by one read of procfs.
const ONE_READ: u64 = 20;

/// Where several namespaces have services, procfs leaves out some of a list that takes
/// more than one read, at most as many as there are elsewhere: the place where the next
/// read begins is counted in all services, and looked for among those of the namespace
/// (ip_vs_ctl.c, `ip_vs_info_seq_next` and `ip_vs_info_array`; seen up to 6.12).
fn doubt(namespaces: &mut [NamespaceReading]) {
    if namespaces.len() < 2 {
        return;
    }
    for namespace in namespaces {
        if namespace.scan.services > ONE_READ {
            namespace.scan.complete = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(services: u64, counted: Option<u64>) -> NamespaceReading {
        NamespaceReading {
            netns: 7,
            pid: 1,
            scan: Scan {
                services,
                destinations: 2 * services,
                drained: 0,
                complete: true,
                ..Scan::default()
            },
            counted,
            estimating: Some(true),
            est_nice: None,
        }
    }

    #[test]
    fn services_that_are_counted_and_not_listed_have_destinations_too() {
        let cut_short = namespace(100, Some(150));
        assert_eq!(cut_short.estimators(), 1 + 150 + 300);
        assert!(!cut_short.is_exact());
        // Those of IPv6 are listed, and not counted.
        let both_families = namespace(100, Some(60));
        assert_eq!(both_families.estimators(), 1 + 100 + 200);
        assert!(both_families.is_exact());
        assert_eq!(namespace(0, None).estimators(), 1);
    }

    #[test]
    fn a_long_list_is_doubted_only_where_others_have_services_too() {
        let mut alone = [namespace(5_000, None)];
        doubt(&mut alone);
        assert!(alone[0].is_exact());
        let mut several = [
            namespace(5_000, None),
            namespace(4_000, Some(4_000)),
            namespace(ONE_READ, None),
        ];
        doubt(&mut several);
        assert_eq!(several.map(|it| it.is_exact()), [false, true, true]);
    }
}
