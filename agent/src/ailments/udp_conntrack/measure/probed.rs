//! What the probes count in the kernel.

use std::time::Instant;

use anyhow::Context as _;
use aya::{
    include_bytes_aligned,
    maps::{MapData, PerCpuArray},
};
use ebpf::udp_conntrack::{End, Flow, FlowCounts, Loss, Offsets, State, Totals};

use super::{Counts, ProbedReading, flows::Flows};
use crate::{
    ailments::{
        counters,
        udp_conntrack::{
            Settings,
            support::{MODULE, Plan},
        },
    },
    kernel::{
        self,
        bpf::{self, Attached, HashMap, Object, Parameters, ProbeLog},
        modules::Held,
    },
    model::{ProbeReport, ProgramStats},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/udp_conntrack"));

/// The probes that are attached, and their maps.
#[derive(Debug)]
pub(super) struct Probed {
    hz: Option<u32>,
    /// Absent where no probe could be attached.
    running: Option<Running>,
    reports: Vec<ProbeReport>,
}

struct Running {
    programs: Held<Vec<Attached>>,
    totals: PerCpuArray<MapData, Totals>,
    map: HashMap<Flow, FlowCounts>,
    _births: aya::maps::Map,
    log: Option<ProbeLog>,
    flows: Flows,
    before: Counts,
    removals: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Running")
            .field("programs", &self.programs)
            .finish_non_exhaustive()
    }
}

impl Probed {
    /// Attaches the probes that the plan has candidates for.
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let hz = plan.hz.as_ref().ok().copied();
        let probes: Vec<_> = plan
            .probes
            .iter()
            .map(|probe| probe.clone().with_hooks(&settings.hooks))
            .collect();
        let can_attach = probes.iter().any(|probe| !probe.candidates.is_empty());
        let (Some(offsets), true) = (plan.offsets, can_attach) else {
            let reports = probes
                .iter()
                .map(|probe| probe.report(None, Vec::new()))
                .collect();
            return Ok(Self {
                hz,
                running: None,
                reports,
            });
        };
        let mut object = load(&offsets, settings)?;
        let mut reports = Vec::new();
        let programs = Held::hold(MODULE, || {
            let attach = |probe| {
                let (attached, report) = object.attach(probe);
                reports.push(report);
                attached
            };
            probes.iter().map(attach).collect()
        });
        let attached = |name| {
            reports
                .iter()
                .any(|report: &ProbeReport| report.name == name && report.hook.is_some())
        };
        if !attached("creations") && !attached("removals") {
            return Ok(Self {
                hz,
                running: None,
                reports,
            });
        }
        let removals = attached("removals");
        let running = Running::new(object, programs, settings, removals)?;
        kernel::return_free_memory();
        Ok(Self {
            hz,
            running: Some(running),
            reports,
        })
    }

    pub(super) fn reports(&self) -> &[ProbeReport] {
        &self.reports
    }

    pub(super) fn read(&mut self) -> anyhow::Result<Option<ProbedReading>> {
        let hz = self.hz;
        self.running
            .as_mut()
            .map(|running| running.read(hz))
            .transpose()
    }

    pub(super) fn idle(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.programs.alone())
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.running
            .iter()
            .flat_map(|running| running.programs.iter())
            .flat_map(Attached::stats)
            .collect()
    }
}

fn load(offsets: &Offsets, settings: &Settings) -> anyhow::Result<Object> {
    let verbose = bpf::verbosity();
    let parameters = Parameters::default()
        .global("OFFSETS", offsets)
        .global("VERBOSE", &verbose)
        .max_entries("FLOWS", settings.max_flows)
        .max_entries("BIRTHS", settings.max_tracked_entries);
    Object::load("udp_conntrack", OBJECT, &parameters)
}

impl Running {
    fn new(
        mut object: Object,
        programs: Held<Vec<Attached>>,
        settings: &Settings,
        removals: bool,
    ) -> anyhow::Result<Self> {
        let totals = object
            .take_map("TOTALS")?
            .try_into()
            .context("open map TOTALS")?;
        let map = object.take_hash_map("FLOWS")?;
        let births = object.take_map("BIRTHS")?;
        let log = bpf::log_of(programs.iter());
        let flows = Flows::new(settings.top_flows as usize);
        Ok(Self {
            programs,
            totals,
            map,
            _births: births,
            log,
            flows,
            before: Counts::empty(),
            removals,
        })
    }

    fn read(&mut self, hz: Option<u32>) -> anyhow::Result<ProbedReading> {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        // The totals first: flows then have as much or more, and what they lack is other.
        let per_cpu = self.totals.get(&0, 0).context("read map TOTALS")?;
        let map = self.map.read()?;
        let total = Counts::sum(per_cpu.iter(), hz);
        let window = total.since(&self.before);
        self.before = total.clone();
        let top = self.flows.update(Instant::now(), map.into_iter());
        Ok(ProbedReading {
            shown: self.flows.shown(),
            other_created: self.flows.other(total.created),
            top,
            lost: counters::lost(
                Loss::ALL.map(Loss::name),
                per_cpu.iter().map(|totals| totals.lost),
                &self.programs(),
            ),
            removals: self.removals,
            total,
            window,
        })
    }

    fn programs(&self) -> Vec<ProgramStats> {
        self.programs.iter().flat_map(Attached::stats).collect()
    }
}

impl Counts {
    fn empty() -> Self {
        Self::sum(std::iter::empty(), None)
    }

    /// Adds the counts of all CPUs.
    fn sum<'a>(per_cpu: impl Iterator<Item = &'a Totals>, hz: Option<u32>) -> Self {
        let mut counts = Self {
            removed: vec![vec![0; State::ALL.len()]; End::ALL.len()],
            lifetimes: vec![0; ebpf::udp_conntrack::LIFETIME_BUCKETS],
            ..Self::default()
        };
        let (mut wasted_jiffies, mut lifetime_ns) = (0, 0);
        for totals in per_cpu {
            counts.created += totals.created;
            counts.created_other += totals.created_other;
            counts.removed_other += totals.removed_other;
            wasted_jiffies += totals.wasted_jiffies;
            lifetime_ns += totals.lifetimes.sum_ns;
            counters::add(
                counts.removed.iter_mut().flatten(),
                totals.removed.iter().flatten(),
            );
            counters::add(counts.lifetimes.iter_mut(), totals.lifetimes.buckets.iter());
        }
        counts.wasted_seconds = hz.map(|hz| wasted_jiffies as f64 / f64::from(hz));
        counts.lifetime_seconds = lifetime_ns as f64 / 1e9;
        counts
    }

    /// What was counted since `before`.
    fn since(&self, before: &Self) -> Self {
        let mut counts = self.clone();
        counts.created -= before.created;
        counts.created_other -= before.created_other;
        counts.removed_other -= before.removed_other;
        counts.lifetime_seconds -= before.lifetime_seconds;
        counts.wasted_seconds = self
            .wasted_seconds
            .map(|seconds| seconds - before.wasted_seconds.unwrap_or_default());
        counters::subtract(
            counts.removed.iter_mut().flatten(),
            before.removed.iter().flatten(),
        );
        counters::subtract(counts.lifetimes.iter_mut(), before.lifetimes.iter());
        counts
    }
}
