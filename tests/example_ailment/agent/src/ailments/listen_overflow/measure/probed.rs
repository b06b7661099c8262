//! What the probe counts in the kernel.

use std::time::Instant;

use anyhow::Context as _;
use aya::{
    include_bytes_aligned,
    maps::{MapData, PerCpuArray},
};
use ebpf::listen_overflow::{Listener, Loss, Totals};

use super::{ListenerReading, ProbedReading};
use crate::{
    ailments::{
        counters,
        listen_overflow::{Settings, support::Plan},
        ranking::Ranking,
    },
    kernel::bpf::{HashMap, Object, Parameters, Probes},
    model::{ProbeReport, ProgramStats},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/listen_overflow"));

/// The probe, and while it is attached its maps.
#[derive(Debug)]
pub(super) struct Probed {
    probes: Probes,
    maps: Option<Maps>,
}

struct Maps {
    totals: PerCpuArray<MapData, Totals>,
    drops: HashMap<Listener, u64>,
    listeners: Ranking<Listener, 1>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl Probed {
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let mut probes = Probes::of([&plan.drops], &settings.hooks);
        let Some(offsets) = plan.offsets.filter(|_| probes.can_attach()) else {
            return Ok(Self { probes, maps: None });
        };
        let parameters = Parameters::default()
            .global("OFFSETS", &offsets)
            .max_entries("DROPS", settings.max_listeners);
        let mut object = Object::load("listen_overflow", OBJECT, &parameters)?;
        probes.attach(&mut object);
        let maps = probes
            .is_attached()
            .then(|| Maps::open(object, settings.top_listeners));
        Ok(Self {
            maps: maps.transpose()?,
            probes,
        })
    }

    pub(super) fn reports(&self) -> &[ProbeReport] {
        self.probes.reports()
    }

    pub(super) fn read(&mut self) -> anyhow::Result<Option<ProbedReading>> {
        let stats = self.probes.stats();
        let maps = self.maps.as_mut();
        maps.map(|maps| maps.read(&stats)).transpose()
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probes.stats()
    }
}

impl Maps {
    fn open(mut object: Object, shown: u32) -> anyhow::Result<Self> {
        let totals = object.take_map("TOTALS")?.try_into();
        Ok(Self {
            totals: totals.context("open map TOTALS")?,
            drops: object.take_hash_map("DROPS")?,
            listeners: Ranking::new(shown as usize),
        })
    }

    fn read(&mut self, programs: &[ProgramStats]) -> anyhow::Result<ProbedReading> {
        let per_cpu = self.totals.get(&0, 0).context("read map TOTALS")?;
        let drops = self.drops.read()?.into_iter();
        let drops = drops.map(|(listener, drops)| (listener, [drops]));
        let top = self.listeners.update(Instant::now(), drops);
        let shown = self.listeners.shown();
        let [other] = self.listeners.other([0]);
        Ok(ProbedReading {
            shown: shown.into_iter().map(reading).collect(),
            other,
            top: top.into_iter().map(reading).collect(),
            lost: counters::lost(
                Loss::ALL.map(Loss::name),
                per_cpu.iter().map(|totals| totals.lost),
                programs,
            ),
        })
    }
}

fn reading((listener, [drops]): (Listener, [u64; 1])) -> ListenerReading {
    ListenerReading {
        netns: listener.netns,
        port: listener.port,
        drops,
    }
}
