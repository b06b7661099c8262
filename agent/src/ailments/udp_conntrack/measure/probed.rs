//! What the probes count in the kernel.

use std::time::Instant;

use anyhow::Context as _;
use aya::{
    include_bytes_aligned,
    maps::{MapData, PerCpuArray},
};
use ebpf::udp_conntrack::{
    End, Flow, FlowCounts, Loss, Offsets, Refusal, RefusedFlow, State, Totals,
};

use super::{
    Counts, ProbedReading,
    flows::Flows,
    refused::{Counted, Refused},
};
use crate::{
    ailments::{
        counters,
        udp_conntrack::{
            Settings,
            support::{CREATIONS, EARLY_DROPS, MODULE, Plan, REMOVALS},
        },
    },
    kernel::bpf::{self, HashMap, Object, Parameters, ProbeLog, Probes},
    model::{Missing, ProbeReport, ProgramStats},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/udp_conntrack"));

/// The probes, and as far as they are attached their maps.
#[derive(Debug)]
pub(super) struct Probed {
    hz: Option<u32>,
    probes: Probes,
    /// Absent where no probe could be attached.
    maps: Option<Maps>,
}

struct Maps {
    totals: PerCpuArray<MapData, Totals>,
    map: HashMap<Flow, FlowCounts>,
    _births: aya::maps::Map,
    log: Option<ProbeLog>,
    flows: Flows,
    refusals: HashMap<RefusedFlow, u64>,
    refused: Refused,
    counted: Counted,
    before: Counts,
    removals: bool,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl Probed {
    /// Attaches the probes that the plan has candidates for.
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let mut probes = Probes::of(&plan.probes, &settings.hooks).of_module(MODULE);
        let maps = match plan.offsets {
            Some(offsets) if probes.can_attach() => attach(&mut probes, &offsets, settings)?,
            Some(_) | None => None,
        };
        Ok(Self {
            hz: plan.hz.as_ref().ok().copied(),
            probes,
            maps,
        })
    }

    pub(super) fn reports(&self) -> &[ProbeReport] {
        self.probes.reports()
    }

    pub(super) fn read(&mut self) -> anyhow::Result<Option<ProbedReading>> {
        let (hz, stats) = (self.hz, self.probes.stats());
        let maps = self.maps.as_mut();
        maps.map(|maps| maps.read(hz, &stats)).transpose()
    }

    pub(super) fn idle(&self) -> bool {
        self.probes.alone()
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probes.stats()
    }
}

/// `None` where the kernel takes neither of the probes that count.
fn attach(
    probes: &mut Probes,
    offsets: &Offsets,
    settings: &Settings,
) -> anyhow::Result<Option<Maps>> {
    let mut object = load(offsets, settings)?;
    probes.attach(&mut object);
    let removals = probes.has(REMOVALS.name);
    if !removals && !probes.has(CREATIONS.name) {
        probes.withdraw(&Missing {
            what: "entries to count".to_owned(),
            why: format!(
                "neither {} nor {} is attached",
                CREATIONS.name, REMOVALS.name
            ),
            remedy: "resolve what these two probes report as missing".to_owned(),
        });
        return Ok(None);
    }
    let counted = Counted {
        room: probes.has(EARLY_DROPS.name),
        insertions: probes.has(CREATIONS.name),
    };
    Maps::open(object, probes.log(), settings, removals, counted).map(Some)
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

impl Maps {
    fn open(
        mut object: Object,
        log: Option<ProbeLog>,
        settings: &Settings,
        removals: bool,
        counted: Counted,
    ) -> anyhow::Result<Self> {
        let totals = object
            .take_map("TOTALS")?
            .try_into()
            .context("open map TOTALS")?;
        let map = object.take_hash_map("FLOWS")?;
        let births = object.take_map("BIRTHS")?;
        let refusals = object.take_hash_map("REFUSALS")?;
        let flows = Flows::new(settings.top_flows as usize);
        Ok(Self {
            totals,
            map,
            _births: births,
            log,
            flows,
            refusals,
            refused: Refused::default(),
            counted,
            before: Counts::empty(),
            removals,
        })
    }

    fn read(
        &mut self,
        hz: Option<u32>,
        programs: &[ProgramStats],
    ) -> anyhow::Result<ProbedReading> {
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
        let mut refused = [0; Refusal::ALL.len()];
        for totals in per_cpu.iter() {
            counters::add(refused.iter_mut(), totals.refused.iter());
        }
        let refusals = self.refusals.read()?.into_iter();
        let refused = self.refused.update(refused, refusals, self.counted);
        Ok(ProbedReading {
            shown: self.flows.shown(),
            other_created: self.flows.other(total.created),
            top,
            lost: counters::lost(
                Loss::ALL.map(Loss::name),
                per_cpu.iter().map(|totals| totals.lost),
                programs,
            ),
            removals: self.removals,
            refused,
            total,
            window,
        })
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
