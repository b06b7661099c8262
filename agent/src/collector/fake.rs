//! An ailment and a kernel for tests: a rate that can be high, a module that comes
//! and goes, and a measurement that can fail, panic or hang.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Condvar, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::{Collector, Host, of};
use crate::{
    collector::{Ailment, Support},
    kernel::{Fact, KernelFacts, cgroup::Hierarchies},
    keys::{count, settings},
    model::{
        AilmentReport, Evidence, Finding, FindingKind, MetricDef, MetricKind, MetricValue, Missing,
        Needs, Party, ProbeReport, ProgramStats, Proposal, Sample, Severity, Treatment,
    },
    node::Directory,
    wakeup::WakeUp,
};

/// The kernel: what it is told to be.
#[derive(Debug)]
pub struct FakeHost {
    id: String,
    directory: Directory,
    wakeup: WakeUp,
    body: Arc<Body>,
}

/// Where host and ailment meet: an ailment's functions know their kernel by its
/// facts alone, so the facts carry the key.
static BODIES: LazyLock<Mutex<HashMap<String, Arc<Body>>>> = LazyLock::new(Mutex::default);

#[derive(Debug, Default)]
pub struct Body {
    module: AtomicU64,
    loads: AtomicU64,
    users: AtomicU64,
    rate: AtomicU64,
    attached: AtomicU64,
    asked: AtomicU64,
    /// Of the last measurement, microseconds.
    window: AtomicU64,
    behaviour: Mutex<Behaviour>,
    behaviour_changed: Condvar,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Behaviour {
    #[default]
    Normal,
    Refusing,
    FailingAttach(String),
    FailingMeasure(String),
    Panicking(String),
    Slow(Duration),
    Hanging,
}

impl Default for FakeHost {
    fn default() -> Self {
        let host = Self::without_module();
        host.load_module();
        host
    }
}

impl FakeHost {
    pub fn without_module() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, SeqCst).to_string();
        let body = Arc::<Body>::default();
        body.rate.store(60, SeqCst);
        body.users.store(1, SeqCst);
        BODIES.lock().unwrap().insert(id.clone(), Arc::clone(&body));
        Self {
            id,
            directory: Directory::default(),
            wakeup: WakeUp::default(),
            body,
        }
    }

    pub fn load_module(&self) {
        self.body
            .module
            .store(self.body.loads.fetch_add(1, SeqCst) + 1, SeqCst);
    }

    pub fn unload_module(&self) {
        self.body.module.store(0, SeqCst);
    }

    pub fn set_module_users(&self, users: u64) {
        self.body.users.store(users, SeqCst);
    }

    pub fn rate(&self, events: u64) {
        self.body.rate.store(events, SeqCst);
    }

    /// Probes that are attached now.
    pub fn attached(&self) -> u64 {
        self.body.attached.load(SeqCst)
    }

    /// How often facts were collected.
    pub fn times_asked(&self) -> u64 {
        self.body.asked.load(SeqCst)
    }

    pub fn refuse(&self) {
        self.set(Behaviour::Refusing);
    }

    pub fn fail_attach(&self, why: &str) {
        self.set(Behaviour::FailingAttach(why.to_owned()));
    }

    pub fn fail_measure(&self, why: &str) {
        self.set(Behaviour::FailingMeasure(why.to_owned()));
    }

    pub fn measure_slowly(&self, time: Duration) {
        self.set(Behaviour::Slow(time));
    }

    /// The window of the last measurement.
    pub fn window(&self) -> Duration {
        Duration::from_micros(self.body.window.load(SeqCst))
    }

    pub fn panic_in_measure(&self, why: &str) {
        self.set(Behaviour::Panicking(why.to_owned()));
    }

    /// What begins from now on, attaching or a measurement, lasts until the guard is
    /// dropped. A runtime waits for its threads, so without the guard a test that has
    /// failed would never end.
    #[must_use]
    pub fn hang(&self) -> Hang<'_> {
        self.set(Behaviour::Hanging);
        Hang(self)
    }

    pub fn recover(&self) {
        self.set(Behaviour::Normal);
    }

    fn set(&self, behaviour: Behaviour) {
        *self
            .body
            .behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = behaviour;
        self.body.behaviour_changed.notify_all();
    }
}

/// While it is there, the host hangs.
#[derive(Debug)]
pub struct Hang<'a>(&'a FakeHost);

impl Drop for Hang<'_> {
    fn drop(&mut self) {
        self.0.recover();
    }
}

impl Body {
    /// The behaviour, as soon as it is not to hang.
    fn behaviour(&self) -> Behaviour {
        let behaviour = self
            .behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.behaviour_changed
            .wait_while(behaviour, |behaviour| *behaviour == Behaviour::Hanging)
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Host for FakeHost {
    fn facts(&self) -> KernelFacts {
        self.body.asked.fetch_add(1, SeqCst);
        let unknown = || "not asked for".to_owned();
        KernelFacts {
            release: self.id.clone(),
            machine: "fake".to_owned(),
            boot_id: Fact::Unknown(unknown()),
            possible_cpus: Fact::Known(1),
            online_cpus: Fact::Known(1),
            hz: Fact::Known(100),
            lockdown: Fact::Unknown(unknown()),
            typed_reads: Fact::Unknown(unknown()),
            programs_hold_modules: Fact::Unknown(unknown()),
            first_user_namespace: Fact::Known(true),
            seccomp_filter: Fact::Known(false),
            config: Fact::Unknown(unknown()),
            refusals: BTreeMap::new(),
            capabilities: Fact::Unknown(unknown()),
            psi: Fact::Known(false),
            cgroups: Fact::Known(Hierarchies::default()),
            bpffs: Fact::Known(false),
            kprobes: Fact::Known(false),
            perf_event_paranoid: Fact::Unknown("fake".to_owned()),
            tracefs: Fact::Known(false),
            btf: Fact::Known(false),
            program_types: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            members: BTreeMap::new(),
            sysctls: BTreeMap::new(),
        }
    }

    fn module_instance(&self, _: &str) -> Option<u64> {
        Some(self.body.module.load(SeqCst)).filter(|load| *load != 0)
    }

    fn module_users(&self, module: &str) -> Option<u32> {
        self.module_instance(module)?;
        u32::try_from(self.body.users.load(SeqCst)).ok()
    }

    fn directory(&self) -> &Directory {
        &self.directory
    }

    fn wakeup(&self) -> &WakeUp {
        &self.wakeup
    }
}

/// A collector of [`Fake`].
pub fn collector() -> Box<dyn Collector> {
    of::<Fake>()
}

/// What a collector reports of a rate.
pub fn report(events: u64) -> AilmentReport {
    let host = FakeHost::default();
    host.rate(events);
    let mut collector = collector();
    collector.tick(&host);
    collector.tick(&host)
}

/// The ailment.
#[derive(Debug)]
pub struct Fake;

settings! {
    /// Limits of the verdict.
    pub struct Settings {
        /// Report `rate_high` from this many events.
        rate_limit: u32 = 100, in count(1..=500);
    }
}

#[derive(Debug)]
pub struct Probe(Arc<Body>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.attached.fetch_sub(1, SeqCst);
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reading {
    rate: u64,
}

pub const EVENTS: MetricDef = MetricDef {
    name: "nodemedic_fake_events_total",
    kind: MetricKind::Counter,
    help: "Events, by source.",
    labels: &["source"],
};
pub const MEMORY: MetricDef = MetricDef {
    name: "nodemedic_fake_memory_bytes",
    kind: MetricKind::Gauge,
    help: "Memory, bytes.",
    labels: &[],
};
pub const PAUSE: MetricDef = MetricDef {
    name: "nodemedic_fake_pause_seconds",
    kind: MetricKind::Histogram,
    help: "Time between two events, seconds.",
    labels: &[],
};

impl Ailment for Fake {
    const NAME: &'static str = "fake";
    const SUMMARY: &'static str = "A rate that is_high.";
    const NEEDS: Needs = Needs {
        modules: &["fake"],
        functions: &[],
        members: &[],
        sysctls: &[],
    };
    const MODULE: Option<&'static str> = Some("fake");
    const METRICS: &'static [MetricDef] = &[EVENTS, MEMORY, PAUSE];
    const FINDINGS: &'static [FindingKind] = &[FindingKind {
        kind: "rate_high",
        severity: "critical",
        numbers: "the rate",
        not: "another rate",
    }];
    const TREATMENTS: &'static [&'static Treatment] = &[];

    type Settings = Settings;
    type Shared = ();
    type Plan = Arc<Body>;
    type Probe = Probe;
    type Reading = Reading;

    fn support(facts: &KernelFacts) -> Support<Self::Plan> {
        let body = Arc::clone(&BODIES.lock().unwrap()[&facts.release]);
        if body.module.load(SeqCst) == 0 || body.users.load(SeqCst) == 0 {
            return Support::Waiting;
        }
        if *body.behaviour.lock().unwrap() == Behaviour::Refusing {
            return Support::No(Missing {
                what: "a counter".to_owned(),
                why: "this kernel has none".to_owned(),
                remedy: "boot another kernel".to_owned(),
            });
        }
        Support::Yes(body)
    }

    fn attach(
        body: Self::Plan,
        _: &Self::Settings,
        (): &(),
        _: &WakeUp,
    ) -> anyhow::Result<Self::Probe> {
        if let Behaviour::FailingAttach(why) = body.behaviour() {
            bail!(why);
        }
        body.attached.fetch_add(1, SeqCst);
        Ok(Probe(body))
    }

    fn probes(_: &Self::Probe) -> Vec<ProbeReport> {
        let hook = Some("fake_hook".to_owned());
        vec![ProbeReport {
            name: "events".to_owned(),
            hook,
            missing: Vec::new(),
        }]
    }

    fn measure(probe: &mut Self::Probe, window: Duration) -> anyhow::Result<Self::Reading> {
        let window = u64::try_from(window.as_micros())?;
        probe.0.window.store(window, SeqCst);
        let behaviour = probe.0.behaviour();
        if let Behaviour::Slow(time) = behaviour {
            std::thread::sleep(time);
        }
        match behaviour {
            Behaviour::FailingMeasure(why) => bail!(why),
            Behaviour::Panicking(why) => panic!("{why}"),
            _ => Ok(Reading {
                rate: probe.0.rate.load(SeqCst),
            }),
        }
    }

    fn judge(reading: &Self::Reading, settings: &Self::Settings) -> Vec<Finding> {
        if reading.rate < u64::from(settings.rate_limit) {
            return Vec::new();
        }
        vec![Finding {
            kind: "rate_high".to_owned(),
            severity: Severity::Critical,
            summary: "The rate is high <so it seems>.".to_owned(),
            evidence: vec![Evidence {
                metric: EVENTS.name.to_owned(),
                value: reading.rate as f64,
                limit: Some(f64::from(settings.rate_limit)),
            }],
            culprits: vec![Party {
                who: "the source".to_owned(),
                share: "all of it".to_owned(),
            }],
            victims: vec![Party {
                who: "the receiver".to_owned(),
                share: "120 events".to_owned(),
            }],
            remedies: vec!["Slow the source down.".to_owned(), "Wait.".to_owned()],
            follows_load: false,
        }]
    }

    fn proposals(_reading: &Self::Reading) -> Vec<Proposal> {
        Vec::new()
    }

    fn samples(reading: &Self::Reading) -> Vec<Sample> {
        let events = reading.rate as f64;
        let pauses = MetricValue::Histogram {
            buckets: vec![(0.5, 0), (1.0, reading.rate)],
            count: reading.rate + 1,
            sum: 60.0,
        };
        vec![
            Sample::number(&EVENTS, ["left"], events),
            Sample::number(&EVENTS, ["right \"upper\"\\\n"], events),
            Sample::plain(&MEMORY, 16_000.0),
            Sample::plain(&PAUSE, pauses),
        ]
    }

    fn lost_events(_: &Self::Reading) -> Vec<(String, u64)> {
        vec![("skipped".to_owned(), 2)]
    }

    fn idle(probe: &Self::Probe) -> bool {
        probe.0.users.load(SeqCst) == 0
    }

    fn programs(_: &Self::Probe) -> Vec<ProgramStats> {
        vec![ProgramStats {
            name: "count_events".to_owned(),
            runs: 7,
            run_seconds: 7e-9,
            recursion_misses: 0,
        }]
    }
}
