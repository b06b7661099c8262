//! What the probes count in the kernel.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::Context as _;
use aya::{
    include_bytes_aligned,
    maps::{Array, MapData, PerCpuArray, PerCpuValues},
};
use ebpf::ipvs_estimation::{Context, Control, Loss, NamespacePasses, Ring, Slow, Totals};

use super::{
    Interval, NamespaceReading, ProbedReading, Recent,
    recent::{Clock, Intervals, PASSES_SECONDS, WAITS_SECONDS},
    tracer::WaitTracer,
};
use crate::{
    ailments::{
        counters,
        durations::Durations,
        ipvs_estimation::{
            Settings,
            support::{MODULE, PASSES, Plan},
        },
    },
    kernel::bpf::{HashMap, Object, Parameters, PlannedProbe, Probes},
    model::{Missing, ProbeReport, ProgramStats},
    time::{monotonic, unix_seconds},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ipvs_estimation"));

/// The probes that are attached, and their maps.
#[derive(Debug)]
pub(super) struct Probed {
    passes: Probes,
    /// Absent where the probe on passes could not be attached: waits mean nothing
    /// without.
    running: Option<Running>,
    /// Of the probes on waits, where they cannot be attached for lack of the other.
    without_passes: Vec<ProbeReport>,
}

struct Running {
    context: Context,
    totals: PerCpuArray<MapData, Totals>,
    slow: PerCpuArray<MapData, Slow>,
    namespaces: HashMap<u64, NamespacePasses>,
    by_namespace: bool,
    control: Array<MapData, Control>,
    /// What was last written into it.
    written: Control,
    object: Object,
    trace: WaitTracer,
    recent: RecentIntervals,
    before: Before,
}

struct RecentIntervals {
    passes: Intervals,
    rx_waits: Intervals,
    task_waits: Intervals,
}

impl RecentIntervals {
    fn new() -> Self {
        Self {
            passes: Intervals::lasting(PASSES_SECONDS),
            rx_waits: Intervals::lasting(WAITS_SECONDS),
            task_waits: Intervals::lasting(WAITS_SECONDS),
        }
    }

    fn update(&mut self, clock: Clock, slow: &PerCpuValues<Slow>) -> Recent {
        let rings = |of: fn(&Slow) -> &Ring| slow.iter().map(of);
        Recent {
            passes: self.passes.update(clock, rings(|slow| &slow.passes)),
            rx_waits: self.rx_waits.update(clock, rings(|slow| &slow.rx_waits)),
            task_waits: self
                .task_waits
                .update(clock, rings(|slow| &slow.task_waits)),
        }
    }
}

/// Counts of the reading before.
#[derive(Default)]
struct Before {
    passes: u64,
    namespaces: BTreeMap<u64, NamespacePasses>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Running")
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// Passes of the window by namespace, or by what stands for it.
#[derive(Debug, Default)]
pub(super) struct PassesByKey {
    /// Whether the keys are inode numbers of namespaces.
    named: bool,
    passes: BTreeMap<u64, Passes>,
}

/// Passes of one namespace in the window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passes {
    /// Those that visited the estimators.
    pub(super) passes: u64,
    /// Their time, nanoseconds.
    pub(super) ns: u64,
    estimating: bool,
    services: u64,
}

impl Probed {
    /// Attaches the probes that the plan has candidates for.
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let mut passes = Probes::of([&plan.passes], &settings.hooks).of_module(MODULE);
        let mut running = None;
        if passes.can_attach() {
            let mut object = load(plan, settings)?;
            passes.attach(&mut object);
            if passes.is_attached() {
                running = Some(Running::new(object, plan, settings)?);
            }
        }
        Ok(Self {
            without_passes: match &running {
                Some(_) => Vec::new(),
                None => waits_without_passes(plan),
            },
            passes,
            running,
        })
    }

    pub(super) fn reports(&self) -> Vec<ProbeReport> {
        let waits = self.running.iter().flat_map(|it| it.trace.reports());
        let waits = waits.chain(&self.without_passes);
        self.passes.reports().iter().chain(waits).cloned().collect()
    }

    pub(super) fn read(&mut self) -> anyhow::Result<Option<(ProbedReading, PassesByKey)>> {
        let programs = self.programs();
        let running = self.running.as_mut();
        running.map(|it| it.read(&programs)).transpose()
    }

    /// Begins or ends the trace over waits.
    pub(super) fn trace(&mut self, slow: bool) -> anyhow::Result<()> {
        match &mut self.running {
            Some(running) => running.trace(slow),
            None => Ok(()),
        }
    }

    pub(super) fn idle(&self) -> bool {
        self.passes.alone()
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        let waits = self.running.iter().flat_map(|it| it.trace.programs());
        self.passes.stats().into_iter().chain(waits).collect()
    }
}

/// Who waits is told by what a pass leaves for its CPU.
fn waits_without_passes(plan: &Plan) -> Vec<ProbeReport> {
    let missing = Missing {
        what: "begin and end of a pass".to_owned(),
        why: format!("probe {PASSES} is not attached"),
        remedy: "resolve what that probe reports as missing".to_owned(),
    };
    let waits = plan.waits.iter();
    let waits = waits.map(|it| PlannedProbe::impossible(it.probe, &missing));
    waits.map(|it| it.report(None, Vec::new())).collect()
}

fn load(plan: &Plan, settings: &Settings) -> anyhow::Result<Object> {
    let slow_ns = settings.slow_threshold.as_nanos() as u64;
    let parameters = Parameters::default()
        .global("OFFSETS", &plan.offsets)
        .global("SLOW_NS", &slow_ns)
        .max_entries("MARKS", plan.possible_cpus.unwrap_or(1));
    Object::load("ipvs_estimation", OBJECT, &parameters)
}

impl Running {
    fn new(mut object: Object, plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let mut map = |name| object.take_map(name);
        let totals = map("TOTALS")?.try_into().context("open map TOTALS")?;
        let slow = map("SLOW")?.try_into().context("open map SLOW")?;
        let control = map("CONTROL")?.try_into().context("open map CONTROL")?;
        let namespaces = object.take_hash_map("NAMESPACES")?;
        let trace = WaitTracer::new(&plan.waits, settings, &mut object);
        Ok(Self {
            context: plan.context.unwrap_or(Context::Softirq),
            totals,
            slow,
            namespaces,
            by_namespace: plan.offsets.tell_namespaces(),
            control,
            written: Control::default(),
            object,
            trace,
            recent: RecentIntervals::new(),
            before: Before::default(),
        })
    }

    fn read(&mut self, programs: &[ProgramStats]) -> anyhow::Result<(ProbedReading, PassesByKey)> {
        let epoch = self.written.epoch;
        self.tell(Control {
            epoch: epoch + 1,
            ..self.written
        })?;
        let totals = self.totals.get(&0, 0).context("read map TOTALS")?;
        let slow = self.slow.get(&0, 0).context("read map SLOW")?;
        let clock = clock();
        let passes = Durations::of(totals.iter().map(|it| &it.passes[self.context as usize]));
        let count = passes.count();
        let window_passes = count - std::mem::replace(&mut self.before.passes, count);
        let reading = ProbedReading {
            window_passes,
            longest: longest(clock, totals.iter(), epoch),
            rx_waits: Durations::of(totals.iter().map(|it| &it.rx_waits)),
            task_waits: Durations::of(totals.iter().map(|it| &it.task_waits)),
            recent: self.recent.update(clock, &slow),
            tracing: self.trace.is_on(),
            lost: counters::lost(
                Loss::ALL.map(Loss::name),
                totals.iter().map(|totals| totals.lost),
                programs,
            ),
            passes,
        };
        Ok((reading, self.by_key()?))
    }

    fn by_key(&mut self) -> anyhow::Result<PassesByKey> {
        let now: BTreeMap<_, _> = self.namespaces.read()?.into_iter().collect();
        let before = std::mem::replace(&mut self.before.namespaces, now.clone());
        let window = now.into_iter().map(|(key, now)| {
            let before = before.get(&key).copied().unwrap_or_default();
            // Smaller than before: it was pushed out of the map, and is in it anew.
            let passes = Passes {
                passes: now.passes.saturating_sub(before.passes),
                ns: now.sum_ns.saturating_sub(before.sum_ns),
                estimating: now.estimating != 0,
                services: now.services,
            };
            (key, passes)
        });
        Ok(PassesByKey {
            named: self.by_namespace,
            passes: window.collect(),
        })
    }

    fn trace(&mut self, slow: bool) -> anyhow::Result<()> {
        match (self.trace.is_wanted(slow), self.trace.is_on()) {
            (true, false) => {
                self.tell(Control {
                    traced_since_ns: monotonic().as_nanos() as u64,
                    ..self.written
                })?;
                self.trace.begin(&mut self.object);
            }
            (false, true) => self.trace.end(),
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    fn tell(&mut self, control: Control) -> anyhow::Result<()> {
        self.control
            .set(0, control, 0)
            .context("write map CONTROL")?;
        self.written = control;
        Ok(())
    }
}

impl PassesByKey {
    /// The namespaces with their passes. Where a pass has no name, the timer that
    /// takes longest is that of the namespace with most estimators, and so on.
    pub(super) fn by_namespace<'n>(
        &self,
        namespaces: &'n [NamespaceReading],
    ) -> Vec<(&'n NamespaceReading, Passes)> {
        if self.named {
            let of = |it: &'n NamespaceReading| {
                let passes = self.passes.get(&u64::from(it.netns))?;
                Some((it, *passes))
            };
            return namespaces.iter().filter_map(of).collect();
        }
        let mut passes: Vec<_> = self.passes.values().filter(|it| it.passes > 0).collect();
        passes.sort_by_key(|it| std::cmp::Reverse(it.ns / it.passes));
        namespaces.iter().zip(passes.into_iter().copied()).collect()
    }

    /// Passes tell whether they visit the estimators, and how many services there
    /// are, in any namespace.
    pub(super) fn tell(&self, namespaces: &mut [NamespaceReading]) {
        for namespace in namespaces.iter_mut().filter(|_| self.named) {
            let Some(passes) = self.passes.get(&u64::from(namespace.netns)) else {
                continue;
            };
            namespace.estimating.get_or_insert(passes.estimating);
            namespace.counted = (passes.services > 0).then_some(passes.services);
        }
    }
}

fn longest<'t>(
    clock: Clock,
    per_cpu: impl Iterator<Item = &'t Totals>,
    epoch: u64,
) -> Option<Interval> {
    let of_epoch = |(cpu, totals): (usize, &Totals)| {
        let longest = &totals.longest[(epoch & 1) as usize];
        let is_there = longest.epoch == epoch && longest.pass.began_ns > 0;
        is_there.then(|| clock.interval(cpu, &longest.pass))
    };
    per_cpu
        .enumerate()
        .filter_map(of_epoch)
        .max_by(|one, other| one.seconds.total_cmp(&other.seconds))
}

fn clock() -> Clock {
    Clock {
        monotonic: monotonic().as_secs_f64(),
        unix: unix_seconds(SystemTime::now()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ipvs::Scan;

    fn namespace(netns: u32, services: u64) -> NamespaceReading {
        NamespaceReading {
            netns,
            pid: 1,
            scan: Scan {
                services,
                complete: true,
                ..Scan::default()
            },
            counted: None,
            estimating: None,
            est_nice: None,
        }
    }

    fn passes(passes: u64, ns: u64) -> Passes {
        Passes {
            passes,
            ns,
            estimating: passes > 0,
            services: 40,
        }
    }

    #[test]
    fn named_passes_belong_to_their_namespace_and_tell_of_it() {
        let by_key = PassesByKey {
            named: true,
            passes: BTreeMap::from([(7, passes(0, 0)), (9, passes(2, 500))]),
        };
        let mut namespaces = [namespace(9, 30), namespace(8, 20), namespace(7, 10)];
        by_key.tell(&mut namespaces);
        let estimating = namespaces.map(|it| it.estimating);
        assert_eq!(estimating, [Some(true), None, Some(false)]);
        let counted = namespaces.map(|it| it.counted);
        assert_eq!(counted, [Some(40), None, Some(40)]);
        let found = by_key.by_namespace(&namespaces);
        let found: Vec<_> = found.iter().map(|(it, of)| (it.netns, of.ns)).collect();
        assert_eq!(found, [(9, 500), (7, 0)]);
    }

    #[test]
    fn passes_without_a_name_are_ascribed_by_their_length() {
        let by_key = PassesByKey {
            named: false,
            passes: BTreeMap::from([
                (0xa, passes(3, 30)),
                (0xb, passes(3, 3_000)),
                (0xc, passes(2, 400)),
            ]),
        };
        let mut namespaces = [namespace(7, 1_000), namespace(8, 100)];
        by_key.tell(&mut namespaces);
        assert_eq!(namespaces.map(|it| it.counted), [None, None]);
        let found = by_key.by_namespace(&namespaces);
        let found: Vec<_> = found.iter().map(|(it, of)| (it.netns, of.ns)).collect();
        assert_eq!(found, [(7, 3_000), (8, 400)]);
    }
}
