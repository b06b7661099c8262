//! What the probes count in the kernel.

use std::{fmt, mem, time::Instant};

use anyhow::Context as _;
use aya::{
    include_bytes_aligned,
    maps::{MapData, PerCpuArray},
};
use ebpf::ipvs_conn_reuse::{
    Client, ClientCounts, Flow, FlowCounts, Loss, Offsets, SpecimenOffsets, Totals, UdpEvent,
};

use super::{
    Counts, DroppedReading, NamespaceReading, ProbedReading, UdpReading,
    check::{Check, Outcome},
    names::{Clients, Services},
    recent::{Recent, Tick},
    tracer::PacketTracer,
    udp::{Datagrams, Turns},
    waiting::WaitingRoom,
};
use crate::{
    ailments::{
        counters,
        ipvs_conn_reuse::{
            Settings,
            support::{MODULE, NEEDED, Plan, Unchecked},
        },
    },
    kernel::{
        self,
        bpf::{self, HashMap, Object, Parameters, ProbeLog, Probes},
    },
    model::{Missing, ProbeReport, ProgramStats},
};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ipvs_conn_reuse"));

/// The probes, and as far as they are attached their maps.
#[derive(Debug)]
pub(super) struct Probed {
    state: State,
    /// Those that are always attached.
    always: Probes,
    /// The one that is attached by the tracer, until that has it.
    kept: Probes,
    /// As `kept`.
    answers: Probes,
    settings: Settings,
    /// Of the check, if the kernel takes no probe for it.
    check: Vec<ProbeReport>,
}

/// What is attached.
#[derive(Debug)]
enum State {
    Nothing,
    /// What shows whether a recorded layout is right.
    Checking(Box<Checking>),
    Running(Box<Running>),
}

struct Checking {
    /// Before the object, whose maps it uses.
    check: Check,
    object: Object,
}

impl fmt::Debug for Checking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Checking").finish_non_exhaustive()
    }
}

struct Running {
    trace: PacketTracer,
    datagrams: Datagrams,
    turns: Turns,
    totals: PerCpuArray<MapData, Totals>,
    flow_map: HashMap<Flow, FlowCounts>,
    client_map: HashMap<Client, ClientCounts>,
    waiting: WaitingRoom,
    log: Option<ProbeLog>,
    services: Services,
    clients: Clients,
    before: Counts,
    /// When the last reading was taken, or the probes were attached.
    read_at: Instant,
    recent: Recent,
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Probed {
    /// Attaches the probes that the plan has candidates for, or what must come before.
    pub(super) fn attach(plan: &Plan, settings: &Settings) -> anyhow::Result<Self> {
        let probes = |planned: Vec<_>| Probes::of(planned, &settings.hooks).of_module(MODULE);
        let mut probed = Self {
            state: State::Nothing,
            always: probes(plan.always.iter().collect()),
            kept: probes(vec![&plan.kept]),
            answers: probes(vec![&plan.answers]),
            settings: settings.clone(),
            check: Vec::new(),
        };
        let can_attach = NEEDED.iter().all(|it| probed.always.can_attach_probe(it));
        let (Some(offsets), true) = (plan.offsets, can_attach) else {
            return Ok(probed);
        };
        match &plan.unchecked {
            None => probed.run(load(&offsets, None, settings)?)?,
            Some(unchecked) => {
                let object = load(&offsets, Some(unchecked), settings)?;
                probed.check(object, unchecked)?;
            }
        }
        Ok(probed)
    }

    fn check(&mut self, mut object: Object, unchecked: &Unchecked) -> anyhow::Result<()> {
        match Check::begin(&mut object, unchecked.clone(), &self.settings.hooks)? {
            Ok(check) => {
                self.postpone(&check.pending());
                self.state = State::Checking(Box::new(Checking { check, object }));
            }
            Err(reports) => self.check = reports,
        }
        Ok(())
    }

    /// Attaches the probes themselves.
    fn run(&mut self, mut object: Object) -> anyhow::Result<()> {
        self.always.attach(&mut object);
        if NEEDED.iter().all(|it| self.always.has(it)) {
            let kept = mem::replace(&mut self.kept, Probes::of([], &[]));
            let answers = mem::replace(&mut self.answers, Probes::of([], &[]));
            let log = self.always.log();
            let running = Running::new(object, log, [kept, answers], &self.settings)?;
            self.state = State::Running(Box::new(running));
        } else {
            self.always.withdraw(&Missing {
                what: format!("probes {}", NEEDED.join(" and ")),
                why: "one of them is not attached, and the others alone would count wrongly"
                    .to_owned(),
                remedy: "resolve what these two probes report as missing".to_owned(),
            });
        }
        Ok(())
    }

    fn postpone(&mut self, why: &Missing) {
        self.always.postpone(why);
        self.kept.postpone(why);
        self.answers.postpone(why);
    }

    pub(super) fn reports(&self) -> impl Iterator<Item = ProbeReport> {
        let traced = match &self.state {
            State::Running(running) => running.trace.reports(),
            State::Nothing | State::Checking(_) => {
                [self.kept.reports(), self.answers.reports()].concat()
            }
        };
        let always = self.always.reports().iter().cloned();
        always.chain(traced).chain(self.check.iter().cloned())
    }

    pub(super) fn read(
        &mut self,
        namespaces: &[NamespaceReading],
        udp: &mut UdpReading,
    ) -> anyhow::Result<Option<ProbedReading>> {
        self.finish_check(namespaces)?;
        match &mut self.state {
            State::Running(running) => {
                let always = self.always.stats();
                running.read(namespaces, udp, &always).map(Some)
            }
            State::Nothing | State::Checking(_) => Ok(None),
        }
    }

    /// Goes on to what the check was for, if it has come to an end.
    fn finish_check(&mut self, namespaces: &[NamespaceReading]) -> anyhow::Result<()> {
        let State::Checking(checking) = &self.state else {
            return Ok(());
        };
        match checking.check.judge(namespaces)? {
            Outcome::Unfinished => {}
            Outcome::Agrees => {
                if let State::Checking(checking) = mem::replace(&mut self.state, State::Nothing) {
                    drop(checking.check);
                    self.run(checking.object)?;
                    // As after attaching at once: the object and its code took megabytes.
                    kernel::return_free_memory();
                }
            }
            Outcome::Disagrees(why) => {
                self.postpone(&why);
                self.state = State::Nothing;
            }
        }
        Ok(())
    }

    pub(super) fn idle(&self) -> bool {
        match &self.state {
            State::Running(_) | State::Nothing => self.always.alone(),
            State::Checking(checking) => checking.check.alone(),
        }
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        let kept = match &self.state {
            State::Running(running) => running.trace.programs(),
            State::Nothing | State::Checking(_) => Vec::new(),
        };
        self.always.stats().into_iter().chain(kept).collect()
    }
}

fn load(
    offsets: &Offsets,
    unchecked: Option<&Unchecked>,
    settings: &Settings,
) -> anyhow::Result<Object> {
    let specimen = unchecked.map(|unchecked| unchecked.layout.specimen);
    let specimen = specimen.unwrap_or(SpecimenOffsets::UNKNOWN);
    let verbose = bpf::verbosity();
    let parameters = Parameters::default()
        .global("OFFSETS", offsets)
        .global("SPECIMEN_OFFSETS", &specimen)
        .global("VERBOSE", &verbose)
        .max_entries("FLOWS", settings.max_services)
        .max_entries("CLIENTS", settings.max_clients)
        .max_entries("UDP_FLOWS", settings.max_udp_flows)
        .max_entries("WAITING", settings.max_waiting);
    Object::load("ipvs_conn_reuse", OBJECT, &parameters)
}

impl Running {
    fn new(
        mut object: Object,
        log: Option<ProbeLog>,
        [kept, answers]: [Probes; 2],
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let totals = object
            .take_map("TOTALS")?
            .try_into()
            .context("open map TOTALS")?;
        let flow_map = object.take_hash_map("FLOWS")?;
        let client_map = object.take_hash_map("CLIENTS")?;
        let datagrams = Datagrams::new(object.take_hash_map("UDP_FLOWS")?, settings.window);
        let waiting = WaitingRoom::open(&mut object, settings.give_up_after)?;
        Ok(Self {
            trace: PacketTracer::new(object, kept, answers, settings.trace_linger)?,
            datagrams,
            turns: Turns::new(),
            totals,
            flow_map,
            client_map,
            waiting,
            log,
            services: Services::new(settings.top_services as usize),
            clients: Clients::new(settings.top_clients as usize),
            before: Counts::empty(),
            read_at: Instant::now(),
            recent: Recent::new(settings.window),
        })
    }

    fn read(
        &mut self,
        namespaces: &[NamespaceReading],
        udp: &mut UdpReading,
        always: &[ProgramStats],
    ) -> anyhow::Result<ProbedReading> {
        // One that is attached only now has seen nothing.
        let is_watched = self.trace.is_on();
        self.trace.follow(namespaces)?;
        if let Some(log) = &mut self.log {
            log.flush();
        }
        // The totals first: services then have as much or more, and what they lack is other.
        let per_cpu = self.totals.get(&0, 0).context("read map TOTALS")?;
        let (flows, clients) = (self.flow_map.read()?, self.client_map.read()?);
        let waiting = self.waiting.sweep()?;
        let total = Counts::sum(per_cpu.iter(), self.waiting.never_connected());
        let now = Instant::now();
        let began = mem::replace(&mut self.read_at, now);
        let datagrams = per_cpu
            .iter()
            .map(|it| it.datagrams[UdpEvent::Dropped as usize]);
        let dropped = self.datagrams.read(began, now, datagrams.sum())?;
        let dropped = DroppedReading {
            is_watched,
            ..dropped
        };
        udp.settle(&dropped);
        self.datagrams.describe(udp);
        let is_wanted = self.turns.decide(udp.wants_answers(), now);
        let tracing_answers = self.trace.trace_answers(is_wanted);
        self.datagrams.turn(tracing_answers, now);
        let tick = Tick {
            began,
            counts: total.since(&self.before),
            services: self.services.update(now, flows),
            clients: self.clients.update(now, clients),
        };
        self.before = total.clone();
        self.recent.push(now, tick);
        let all = total.outcomes().by_outcome().map(|(_, syns)| syns);
        Ok(ProbedReading {
            services: self.services.shown(),
            other_services: self.services.other(all),
            top_services: self.recent.services(),
            clients: self.clients.shown(),
            other_clients: self.clients.other(all),
            top_clients: self.recent.clients(),
            waiting: waiting.clients,
            longest_wait_seconds: waiting.longest.as_secs_f64(),
            tracing: self.trace.is_on(),
            tracing_answers,
            dropped,
            lost: counters::lost(
                Loss::ALL.map(Loss::name),
                per_cpu.iter().map(|totals| totals.lost),
                &[always, &self.trace.programs()].concat(),
            ),
            recent: self.recent.counts(),
            recent_seconds: self.recent.length(now).as_secs_f64(),
            total,
        })
    }
}
