//! An ailment and a kernel for tests: a pulse that can race, a module that comes
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

use super::{Host, Ward, of};
use crate::{
    ailments::{Ailment, Support},
    config::{count, settings},
    kernel::{Fact, KernelFacts, Needs, cgroup::Hierarchies},
    metrics::{Kind, MetricDef, Sample, Value},
    node::Directory,
    report::{
        AilmentReport, Evidence, Finding, Missing, Party, ProbeReport, ProgramStats, Severity,
    },
    treatment::{Proposal, Treatment},
};

/// The kernel: what it is told to be.
#[derive(Debug)]
pub struct ShamHost {
    id: String,
    directory: Directory,
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
    pulse: AtomicU64,
    attached: AtomicU64,
    asked: AtomicU64,
    mood: Mutex<Mood>,
    mood_changed: Condvar,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    Refusing,
    FailingAttach(String),
    FailingMeasure(String),
    Panicking(String),
    Hanging,
}

impl Default for ShamHost {
    fn default() -> Self {
        let host = Self::without_module();
        host.load_module();
        host
    }
}

impl ShamHost {
    pub fn without_module() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, SeqCst).to_string();
        let body = Arc::<Body>::default();
        body.pulse.store(60, SeqCst);
        body.users.store(1, SeqCst);
        BODIES.lock().unwrap().insert(id.clone(), Arc::clone(&body));
        Self {
            id,
            directory: Directory::default(),
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

    pub fn pulse(&self, beats: u64) {
        self.body.pulse.store(beats, SeqCst);
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
        self.feel(Mood::Refusing);
    }

    pub fn fail_attach(&self, why: &str) {
        self.feel(Mood::FailingAttach(why.to_owned()));
    }

    pub fn fail_measure(&self, why: &str) {
        self.feel(Mood::FailingMeasure(why.to_owned()));
    }

    pub fn panic_in_measure(&self, why: &str) {
        self.feel(Mood::Panicking(why.to_owned()));
    }

    /// What begins from now on, attaching or a measurement, lasts until the guard is
    /// dropped. A runtime waits for its threads, so without the guard a test that has
    /// failed would never end.
    #[must_use]
    pub fn hang(&self) -> Hang<'_> {
        self.feel(Mood::Hanging);
        Hang(self)
    }

    pub fn heal(&self) {
        self.feel(Mood::Well);
    }

    fn feel(&self, mood: Mood) {
        *self
            .body
            .mood
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = mood;
        self.body.mood_changed.notify_all();
    }
}

/// While it is there, the host hangs.
#[derive(Debug)]
pub struct Hang<'a>(&'a ShamHost);

impl Drop for Hang<'_> {
    fn drop(&mut self) {
        self.0.heal();
    }
}

impl Body {
    /// The mood, as soon as it is not to hang.
    fn mood(&self) -> Mood {
        let mood = self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        self.mood_changed
            .wait_while(mood, |mood| *mood == Mood::Hanging)
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Host for ShamHost {
    fn facts(&self) -> KernelFacts {
        self.body.asked.fetch_add(1, SeqCst);
        let unknown = || "not asked for".to_owned();
        KernelFacts {
            release: self.id.clone(),
            machine: "sham".to_owned(),
            boot_id: Fact::Unknown(unknown()),
            possible_cpus: Fact::Known(1),
            online_cpus: Fact::Known(1),
            hz: Fact::Known(100),
            lockdown: Fact::Unknown(unknown()),
            capabilities: Fact::Unknown(unknown()),
            psi: Fact::Known(false),
            cgroups: Fact::Known(Hierarchies::default()),
            bpffs: Fact::Known(false),
            kprobes: Fact::Known(false),
            perf_event_paranoid: Fact::Unknown("sham".to_owned()),
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
}

/// A ward of [`Sham`].
pub fn ward() -> Box<dyn Ward> {
    of::<Sham>()
}

/// What a ward reports of a pulse.
pub fn report(beats: u64) -> AilmentReport {
    let host = ShamHost::default();
    host.pulse(beats);
    let mut ward = ward();
    ward.tick(&host);
    ward.tick(&host)
}

/// The ailment.
#[derive(Debug)]
pub struct Sham;

settings! {
    /// Limits of the verdict.
    pub struct Settings {
        /// Beats from which on the pulse races.
        racing: u32 = 100, in count(1..=500);
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
    pulse: u64,
}

pub const BEATS: MetricDef = MetricDef {
    name: "nodemedic_sham_beats_total",
    kind: Kind::Counter,
    help: "Beats of the heart, by chamber.",
    labels: &["chamber"],
};
pub const PRESSURE: MetricDef = MetricDef {
    name: "nodemedic_sham_pressure_pascals",
    kind: Kind::Gauge,
    help: "Pressure of the blood, pascals.",
    labels: &[],
};
pub const PAUSE: MetricDef = MetricDef {
    name: "nodemedic_sham_pause_seconds",
    kind: Kind::Histogram,
    help: "Time between two beats, seconds.",
    labels: &[],
};

impl Ailment for Sham {
    const NAME: &'static str = "sham";
    const SUMMARY: &'static str = "A pulse that races.";
    const NEEDS: Needs = Needs {
        modules: &["sham"],
        functions: &[],
        members: &[],
        sysctls: &[],
    };
    const MODULE: Option<&'static str> = Some("sham");
    const METRICS: &'static [MetricDef] = &[BEATS, PRESSURE, PAUSE];
    const FINDINGS: &'static [&'static str] = &["racing"];
    const TREATMENTS: &'static [&'static Treatment] = &[];

    type Settings = Settings;
    type Plan = Arc<Body>;
    type Probe = Probe;
    type Reading = Reading;

    fn support(facts: &KernelFacts) -> Support<Self::Plan> {
        let body = Arc::clone(&BODIES.lock().unwrap()[&facts.release]);
        if body.module.load(SeqCst) == 0 || body.users.load(SeqCst) == 0 {
            return Support::Waiting;
        }
        if *body.mood.lock().unwrap() == Mood::Refusing {
            return Support::No(Missing {
                what: "a heart".to_owned(),
                why: "this kernel has none".to_owned(),
                remedy: "boot another kernel".to_owned(),
            });
        }
        Support::Yes(body)
    }

    fn attach(body: Self::Plan, _: &Self::Settings) -> anyhow::Result<Self::Probe> {
        if let Mood::FailingAttach(why) = body.mood() {
            bail!(why);
        }
        body.attached.fetch_add(1, SeqCst);
        Ok(Probe(body))
    }

    fn probes(_: &Self::Probe) -> Vec<ProbeReport> {
        let hook = Some("finger".to_owned());
        vec![ProbeReport {
            name: "wrist".to_owned(),
            hook,
            missing: Vec::new(),
        }]
    }

    fn measure(probe: &mut Self::Probe, _: Duration) -> anyhow::Result<Self::Reading> {
        match probe.0.mood() {
            Mood::FailingMeasure(why) => bail!(why),
            Mood::Panicking(why) => panic!("{why}"),
            _ => Ok(Reading {
                pulse: probe.0.pulse.load(SeqCst),
            }),
        }
    }

    fn judge(reading: &Self::Reading, settings: &Self::Settings) -> Vec<Finding> {
        if reading.pulse < u64::from(settings.racing) {
            return Vec::new();
        }
        vec![Finding {
            kind: "racing".to_owned(),
            severity: Severity::Critical,
            summary: "The pulse races <so it seems>.".to_owned(),
            evidence: vec![Evidence {
                metric: BEATS.name.to_owned(),
                value: reading.pulse as f64,
                limit: Some(f64::from(settings.racing)),
            }],
            culprits: vec![Party {
                who: "a lion".to_owned(),
                share: "all of it".to_owned(),
            }],
            victims: vec![Party {
                who: "the heart".to_owned(),
                share: "120 beats".to_owned(),
            }],
            remedies: vec!["Climb a tree.".to_owned(), "Wait.".to_owned()],
        }]
    }

    fn proposals(_reading: &Self::Reading) -> Vec<Proposal> {
        Vec::new()
    }

    fn samples(reading: &Self::Reading) -> Vec<Sample> {
        let beats = reading.pulse as f64;
        let pauses = Value::Histogram {
            buckets: vec![(0.5, 0), (1.0, reading.pulse)],
            count: reading.pulse + 1,
            sum: 60.0,
        };
        vec![
            Sample::number(&BEATS, ["left"], beats),
            Sample::number(&BEATS, ["right \"upper\"\\\n"], beats),
            Sample::plain(&PRESSURE, 16_000.0),
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
            name: "feel".to_owned(),
            runs: 7,
            run_seconds: 7e-9,
            recursion_misses: 0,
        }]
    }
}
