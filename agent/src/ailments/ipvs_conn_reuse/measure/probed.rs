//! What the probes count in the kernel.

use std::{fmt, time::Instant};

use anyhow::Context as _;
use aya::{
    EbpfLoader, include_bytes_aligned,
    maps::{MapData, PerCpuArray},
};
use ebpf::ipvs_conn_reuse::{Client, ClientCounts, Flow, FlowCounts, Loss, Offsets, Totals};

use super::{
    Counts, NamespaceReading, ProbedReading,
    names::{Clients, Services},
    waiting::WaitingRoom,
    watch::Watch,
};
use crate::{
    ailments::ipvs_conn_reuse::{
        Settings,
        support::{MODULE, Plan},
    },
    kernel::{
        self,
        bpf::{Attached, HashMap, Object, PlannedProbe, ProbeLog},
        modules::Held,
    },
    report::{ProbeReport, ProgramStats},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ipvs_conn_reuse"));

/// The probes that are attached, and their maps.
#[derive(Debug)]
pub(super) struct Probed {
    /// Absent where no probe could be attached.
    running: Option<Running>,
    reports: Vec<ProbeReport>,
}

struct Running {
    programs: Held<Vec<Attached>>,
    watch: Watch,
    totals: PerCpuArray<MapData, Totals>,
    flow_map: HashMap<Flow, FlowCounts>,
    client_map: HashMap<Client, ClientCounts>,
    waiting: WaitingRoom,
    log: Option<ProbeLog>,
    object: Object,
    services: Services,
    clients: Clients,
    before: Counts,
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Running")
            .field("programs", &self.programs)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

impl Probed {
    /// Attaches the probes that the plan has candidates for.
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let wanted = |probe: &PlannedProbe| probe.clone().with_hooks(&settings.hooks);
        let always: Vec<_> = plan.always.iter().map(wanted).collect();
        let kept = wanted(&plan.kept);
        let can_attach = always.iter().all(|probe| !probe.candidates.is_empty());
        let (Some(offsets), true) = (plan.offsets, can_attach) else {
            let none = |probe: &PlannedProbe| probe.report(None, Vec::new());
            return Ok(Self {
                running: None,
                reports: always.iter().chain([&kept]).map(none).collect(),
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
            always.iter().map(attach).collect()
        });
        if reports.iter().any(|report| report.hook.is_none()) {
            // One without the other would count wrongly.
            reports.push(kept.report(None, Vec::new()));
            return Ok(Self {
                running: None,
                reports,
            });
        }
        let running = Running::new(object, programs, Watch::new(kept), settings)?;
        kernel::return_free_memory();
        Ok(Self {
            running: Some(running),
            reports,
        })
    }

    pub(super) fn reports(&self) -> impl Iterator<Item = ProbeReport> {
        let watch = self.running.iter().map(|running| running.watch.report());
        self.reports.iter().chain(watch).cloned()
    }

    pub(super) fn read(
        &mut self,
        namespaces: &[NamespaceReading],
    ) -> anyhow::Result<Option<ProbedReading>> {
        self.running
            .as_mut()
            .map(|running| running.read(namespaces))
            .transpose()
    }

    pub(super) fn idle(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.programs.alone())
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.running.iter().flat_map(Running::programs).collect()
    }
}

fn load(offsets: &Offsets, settings: &Settings) -> anyhow::Result<Object> {
    let verbose = u32::from(tracing::enabled!(tracing::Level::DEBUG));
    let mut loader = EbpfLoader::new();
    loader
        .override_global("OFFSETS", offsets, true)
        .override_global("VERBOSE", &verbose, true)
        .map_max_entries("FLOWS", settings.max_services)
        .map_max_entries("CLIENTS", settings.max_clients)
        .map_max_entries("WAITING", settings.max_waiting);
    Object::load("ipvs_conn_reuse", OBJECT, &mut loader)
}

impl Running {
    fn new(
        mut object: Object,
        programs: Held<Vec<Attached>>,
        watch: Watch,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let totals = object
            .take_map("TOTALS")?
            .try_into()
            .context("open map TOTALS")?;
        let flow_map = object.take_hash_map("FLOWS")?;
        let client_map = object.take_hash_map("CLIENTS")?;
        let waiting = WaitingRoom::open(&mut object, settings.give_up_after)?;
        let log = object
            .logger()
            .inspect_err(|error| tracing::warn!("the probes' own log is not read: {error:#}"))
            .ok();
        Ok(Self {
            programs,
            watch,
            totals,
            flow_map,
            client_map,
            waiting,
            log,
            object,
            services: Services::new(settings.top_services as usize),
            clients: Clients::new(settings.top_clients as usize),
            before: Counts::empty(),
        })
    }

    fn read(&mut self, namespaces: &[NamespaceReading]) -> anyhow::Result<ProbedReading> {
        self.watch.follow(&mut self.object, namespaces);
        if let Some(log) = &mut self.log {
            log.flush();
        }
        // The totals first: services then have as much or more, and what they lack is other.
        let per_cpu = self.totals.get(&0, 0).context("read map TOTALS")?;
        let (flows, clients) = (self.flow_map.read()?, self.client_map.read()?);
        let waiting = self.waiting.sweep()?;
        let total = Counts::sum(per_cpu.iter(), self.waiting.never_connected());
        let window = total.since(&self.before);
        self.before = total.clone();
        let now = Instant::now();
        let top_services = self.services.update(now, flows);
        let top_clients = self.clients.update(now, clients);
        let all = total.outcomes().by_outcome().map(|(_, syns)| syns);
        Ok(ProbedReading {
            services: self.services.shown(),
            other_services: self.services.other(all),
            top_services,
            clients: self.clients.shown(),
            other_clients: self.clients.other(all),
            top_clients,
            waiting: waiting.clients,
            longest_wait_seconds: waiting.longest.as_secs_f64(),
            watching: self.watch.is_on(),
            lost: lost(per_cpu.iter(), &self.programs().collect::<Vec<_>>()),
            total,
            window,
        })
    }

    fn programs(&self) -> impl Iterator<Item = ProgramStats> {
        let always = self.programs.iter().flat_map(Attached::stats);
        always.chain(self.watch.programs())
    }
}

/// Losses that the programs counted, and runs that the kernel left out.
fn lost<'a>(
    per_cpu: impl Iterator<Item = &'a Totals>,
    programs: &[ProgramStats],
) -> Vec<(String, u64)> {
    let mut sums = [0; Loss::ALL.len()];
    for totals in per_cpu {
        for (sum, lost) in sums.iter_mut().zip(totals.lost) {
            *sum += lost;
        }
    }
    let missed = programs
        .iter()
        .map(|program| program.recursion_misses)
        .sum();
    Loss::ALL
        .into_iter()
        .map(|loss| (loss.name().to_owned(), sums[loss as usize]))
        .chain([("missed".to_owned(), missed)])
        .collect()
}
