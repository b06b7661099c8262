//! The one implementation of [`Collector`].

use std::{
    fmt, mem,
    sync::Arc,
    time::{Instant, SystemTime},
};

use serde::Deserialize as _;
use toml::de::ValueDeserializer;

use super::{Collector, Host, guard::guarded, pause::Pause};
use crate::{
    collector::{Ailment, Support, judged},
    kernel::{self, KernelFacts},
    keys::Keyed as _,
    model::{
        About, AilmentReport, Coverage, Errors, Finding, Missing, ProbeReport, Switch, Verdict,
    },
    time::unix_seconds,
};

pub(super) struct Observed<A: Ailment> {
    settings: A::Settings,
    shared: A::Shared,
    /// Which load of the probed module this is, as of the last tick.
    module: Option<u64>,
    /// Whether anybody used the probed module when it was last asked for.
    in_use: bool,
    state: State<A>,
    pause: Pause,
    errors: Errors,
    /// When the last reading was taken, seconds since the epoch.
    read_at: Option<f64>,
}

enum State<A: Ailment> {
    Absent(Absence),
    Attached(Attached<A>),
}

/// Why nothing is attached.
struct Absence {
    coverage: Coverage,
    probes: Vec<ProbeReport>,
}

struct Attached<A: Ailment> {
    probe: A::Probe,
    /// What the probe said of itself last.
    probes: Vec<ProbeReport>,
    /// When it was attached, then when its last reading began.
    since: Instant,
}

impl<A: Ailment> Collector for Observed<A> {
    fn about(&self) -> About {
        About {
            name: A::NAME,
            summary: A::SUMMARY,
            needs: A::NEEDS,
            metrics: A::METRICS,
            findings: A::FINDINGS,
            keys: A::Settings::KEYS,
            treatments: A::TREATMENTS,
        }
    }

    fn settings(&self) -> Result<toml::Table, toml::ser::Error> {
        toml::Table::try_from(&self.settings)
    }

    fn configure(&mut self, table: ValueDeserializer<'_>) -> Result<(), toml::de::Error> {
        self.settings = A::Settings::deserialize(table)?;
        Ok(())
    }

    fn switches(&self) -> Vec<Arc<dyn Switch>> {
        A::switches(&self.shared)
    }

    fn tick(&mut self, host: &dyn Host) -> AilmentReport {
        let began = Instant::now();
        self.follow_module(host);
        let (state, report) = match mem::take(&mut self.state) {
            State::Attached(attached) => self.measure(attached, host),
            State::Absent(absence) => self.attach_when_due(absence, host),
        };
        self.state = state;
        AilmentReport {
            measure_seconds: began.elapsed().as_secs_f64(),
            reading_unix_seconds: self.read_at,
            errors: self.errors,
            ..report
        }
    }

    fn replay(&self, saved: &mut AilmentReport) -> Result<(), serde_json::Error> {
        if !saved.reading.is_null() {
            let reading = A::Reading::deserialize(&saved.reading)?;
            self.interpret(&reading, saved);
        }
        Ok(())
    }
}

impl<A: Ailment> Observed<A> {
    /// A module takes its probes with it, and a new load of it needs new ones.
    fn follow_module(&mut self, host: &dyn Host) {
        let module = A::MODULE.and_then(|module| host.module_instance(module));
        if self.module != module {
            self.module = module;
            self.pause = Pause::default();
            self.state = State::default();
        }
    }

    /// What waits for the first user of its module need not wait longer.
    fn follow_use(&mut self, host: &dyn Host) {
        let users = A::MODULE.and_then(|module| host.module_users(module));
        let in_use = users.is_some_and(|users| users > 0);
        if in_use && !self.in_use {
            self.pause = Pause::default();
        }
        self.in_use = in_use;
    }

    fn attach_when_due(&mut self, absence: Absence, host: &dyn Host) -> (State<A>, AilmentReport) {
        self.follow_use(host);
        if !self.pause.is_over() {
            return Self::absent(absence);
        }
        self.pause.lengthen();
        match guarded(|| self.attach(host)) {
            Ok(Ok(attached)) => {
                let report = attached.report();
                (State::Attached(attached), report)
            }
            Ok(Err(absence)) => Self::absent(absence),
            Err(error) => {
                self.errors.attach += 1;
                Self::absent(Absence::failed(&error, Vec::new()))
            }
        }
    }

    fn attach(&mut self, host: &dyn Host) -> anyhow::Result<Result<Attached<A>, Absence>> {
        let facts = host.facts();
        Ok(match A::support(&facts) {
            Support::Yes(plan) => {
                let probe = A::attach(plan, &self.settings, &self.shared, host.wakeup())?;
                // The objects and their code took megabytes.
                kernel::return_free_memory();
                Ok(Attached {
                    probes: A::probes(&probe),
                    probe,
                    since: Instant::now(),
                })
            }
            Support::Waiting => {
                self.wait_for_module(&facts);
                Err(Absence::waiting::<A>())
            }
            Support::No(missing) => Err(Absence::unsupported(missing)),
        })
    }

    /// The module and its first user are looked for each tick; collecting all facts to
    /// learn that they have not come would cost a node without the module the most. What
    /// has to change is what these facts saw.
    fn wait_for_module(&mut self, facts: &KernelFacts) {
        let module = A::MODULE.and_then(|module| facts.modules.get(module));
        let users = module.and_then(|module| module.users);
        self.in_use = users.is_some_and(|users| users > 0);
        self.pause = Pause::longest();
    }

    /// An error leaves the probe for the next tick. A panic may have left it half
    /// changed, so it goes.
    fn measure(&mut self, attached: Attached<A>, host: &dyn Host) -> (State<A>, AilmentReport) {
        let outcome = guarded(|| {
            let mut attached = attached;
            let outcome = self.try_measure(&mut attached, host);
            Ok((attached, outcome))
        });
        match outcome {
            Ok((attached, Ok(report))) => {
                self.pause = Pause::default();
                self.read_at = Some(unix_seconds(SystemTime::now()));
                (self.unless_idle(attached), report)
            }
            Ok((attached, Err(error))) => {
                self.errors.measure += 1;
                let absence = Absence::failed(&error, attached.probes.clone());
                (State::Attached(attached), absence.report::<A>())
            }
            Err(panic) => {
                self.errors.measure += 1;
                Self::absent(Absence::failed(&panic, Vec::new()))
            }
        }
    }

    /// The agent must not be what keeps a module from being unloaded.
    fn unless_idle(&mut self, attached: Attached<A>) -> State<A> {
        if !A::idle(&attached.probe) {
            return State::Attached(attached);
        }
        self.in_use = false;
        State::Absent(Absence::waiting::<A>())
    }

    fn try_measure(
        &self,
        attached: &mut Attached<A>,
        host: &dyn Host,
    ) -> anyhow::Result<AilmentReport> {
        // Counters are read at the begin: how long all of it takes is of the next window.
        let began = Instant::now();
        let window = began.saturating_duration_since(attached.since);
        let mut reading = A::measure(&mut attached.probe, window)?;
        attached.since = began;
        A::identify(&mut reading, host.directory());
        attached.probes = A::probes(&attached.probe);
        let mut report = attached.report();
        self.interpret(&reading, &mut report);
        report.programs = A::programs(&attached.probe);
        report.reading = serde_json::to_value(&reading)?;
        Ok(report)
    }

    /// All that follows from a reading alone.
    fn interpret(&self, reading: &A::Reading, report: &mut AilmentReport) {
        (report.proposals, report.findings) = judged::<A>(reading, &self.settings);
        report.notes = A::unknown(reading, &self.settings);
        report.verdict = worst(&report.findings, &report.notes);
        report.notes.extend(A::notes(reading, &self.settings));
        report.samples = A::samples(reading);
        report.lost_events = A::lost_events(reading);
    }

    fn absent(absence: Absence) -> (State<A>, AilmentReport) {
        let report = absence.report::<A>();
        (State::Absent(absence), report)
    }
}

impl<A: Ailment> Attached<A> {
    fn report(&self) -> AilmentReport {
        let coverage = if self.probes.iter().all(|probe| probe.hook.is_some()) {
            Coverage::Full
        } else {
            Coverage::Partial
        };
        AilmentReport::unmeasured(A::NAME, coverage, self.probes.clone())
    }
}

impl Absence {
    fn waiting<A: Ailment>() -> Self {
        Self {
            coverage: Coverage::Waiting {
                module: A::MODULE.unwrap_or_default().to_owned(),
            },
            probes: Vec::new(),
        }
    }

    /// The kernel lacks even what the baseline needs.
    fn unsupported(missing: Missing) -> Self {
        let why = "not even its baseline can be read".to_owned();
        let baseline = ProbeReport {
            name: "baseline".to_owned(),
            hook: None,
            missing: vec![missing],
        };
        Self {
            coverage: Coverage::Unsupported { why },
            probes: vec![baseline],
        }
    }

    fn failed(error: &anyhow::Error, probes: Vec<ProbeReport>) -> Self {
        Self {
            coverage: Coverage::Failed {
                why: format!("{error:#}"),
            },
            probes,
        }
    }

    fn report<A: Ailment>(&self) -> AilmentReport {
        AilmentReport::unmeasured(A::NAME, self.coverage.clone(), self.probes.clone())
    }
}

impl<A: Ailment> fmt::Debug for Observed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed")
            .field("ailment", &A::NAME)
            .finish_non_exhaustive()
    }
}

impl<A: Ailment> Default for Observed<A> {
    fn default() -> Self {
        Self {
            settings: A::Settings::default(),
            shared: A::Shared::default(),
            module: None,
            in_use: false,
            state: State::default(),
            pause: Pause::default(),
            errors: Errors::default(),
            read_at: None,
        }
    }
}

/// Nothing was tried yet.
impl<A: Ailment> Default for State<A> {
    fn default() -> Self {
        Self::Absent(Absence {
            coverage: Coverage::Starting,
            probes: Vec::new(),
        })
    }
}

fn worst(findings: &[Finding], unknown: &[String]) -> Verdict {
    let severities = findings
        .iter()
        .map(|finding| Verdict::from(finding.severity));
    severities.max().unwrap_or(if unknown.is_empty() {
        Verdict::Healthy
    } else {
        Verdict::Unknown
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            fake::{Fake, FakeHost},
            of,
        },
        *,
    };

    /// A collector that has attached.
    fn attached(host: &FakeHost) -> Box<dyn Collector> {
        let mut collector = of::<Fake>();
        assert_eq!(collector.tick(host).coverage, Coverage::Full);
        collector
    }

    #[test]
    fn the_first_tick_attaches_and_the_second_reads() {
        let host = FakeHost::default();
        let mut collector = of::<Fake>();
        let first = collector.tick(&host);
        assert_eq!(
            (first.coverage, first.verdict),
            (Coverage::Full, Verdict::Unknown)
        );
        assert_eq!(first.reading_unix_seconds, None);
        let second = collector.tick(&host);
        assert_eq!(second.verdict, Verdict::Healthy);
        assert!(second.reading_unix_seconds.is_some());
        assert!(!second.samples.is_empty());
    }

    /// A counter over a window that is too short is more than there was time for.
    #[test]
    fn a_window_lasts_from_one_reading_to_the_next_however_long_these_take() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        let slow = Duration::from_millis(50);
        host.measure_slowly(slow);
        collector.tick(&host);
        collector.tick(&host);
        assert!(host.window() >= slow, "{:?}", host.window());
    }

    #[test]
    fn a_finding_makes_the_verdict() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        host.rate(120);
        let report = collector.tick(&host);
        assert_eq!(report.verdict, Verdict::Critical);
        assert_eq!(report.findings[0].kind, "rate_high");
    }

    #[test]
    fn a_saved_reading_gives_the_same_verdict() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        host.rate(120);
        let report = collector.tick(&host);
        let saved = serde_json::to_string(&report).unwrap();
        let mut saved: AilmentReport = serde_json::from_str(&saved).unwrap();
        saved.findings.clear();
        saved.verdict = Verdict::Unknown;
        of::<Fake>().replay(&mut saved).unwrap();
        assert_eq!(saved.findings, report.findings);
        assert_eq!(saved.verdict, report.verdict);
        assert_eq!(saved.samples, report.samples);
    }

    #[test]
    fn another_ailments_reading_is_an_error() {
        let host = FakeHost::default();
        let mut saved = attached(&host).tick(&host);
        saved.reading = serde_json::json!({ "colour": "green" });
        assert!(of::<Fake>().replay(&mut saved).is_err());
    }

    #[test]
    fn a_module_that_is_missing_is_waited_for() {
        let host = FakeHost::without_module();
        let mut collector = of::<Fake>();
        let waiting = Coverage::Waiting {
            module: "fake".to_owned(),
        };
        for _ in 0..10 {
            assert_eq!(collector.tick(&host).coverage, waiting);
        }
        assert_eq!(host.times_asked(), 1, "nothing has changed");
        host.load_module();
        assert_eq!(collector.tick(&host).coverage, Coverage::Full);
    }

    #[test]
    fn a_module_that_is_reloaded_is_attached_anew() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        assert_eq!(host.attached(), 1);
        host.unload_module();
        assert!(matches!(
            collector.tick(&host).coverage,
            Coverage::Waiting { .. }
        ));
        assert_eq!(host.attached(), 0, "the probe is dropped");
        host.load_module();
        assert_eq!(collector.tick(&host).coverage, Coverage::Full);
        assert_eq!(host.attached(), 1);
    }

    #[test]
    fn a_module_that_is_reloaded_between_two_ticks_is_noticed() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        host.unload_module();
        host.load_module();
        let report = collector.tick(&host);
        assert_eq!(
            (report.coverage, report.verdict),
            (Coverage::Full, Verdict::Unknown)
        );
    }

    #[test]
    fn a_module_that_nobody_uses_is_let_go_and_taken_again() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        host.set_module_users(0);
        assert_eq!(
            collector.tick(&host).verdict,
            Verdict::Healthy,
            "the last reading"
        );
        assert_eq!(host.attached(), 0);
        for _ in 0..10 {
            assert!(matches!(
                collector.tick(&host).coverage,
                Coverage::Waiting { .. }
            ));
        }
        host.set_module_users(1);
        assert_eq!(collector.tick(&host).coverage, Coverage::Full);
    }

    #[test]
    fn a_failed_reading_keeps_the_probe_and_is_tried_again() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        host.fail_measure("no rate");
        let failed = collector.tick(&host);
        assert_eq!(
            failed.coverage,
            Coverage::Failed {
                why: "no rate".to_owned()
            }
        );
        assert_eq!(failed.verdict, Verdict::Unknown);
        assert_eq!(failed.errors.measure, 1);
        assert_eq!(host.attached(), 1);
        host.recover();
        let report = collector.tick(&host);
        assert_eq!(report.verdict, Verdict::Healthy);
        assert_eq!(report.errors.measure, 1, "errors are kept in mind");
    }

    #[test]
    fn a_panic_is_a_report_and_costs_the_probe() {
        let host = FakeHost::default();
        let mut collector = attached(&host);
        host.panic_in_measure("out of bounds");
        let report = collector.tick(&host);
        let why = "panicked: out of bounds".to_owned();
        assert_eq!(report.coverage, Coverage::Failed { why });
        assert_eq!(report.errors.measure, 1);
        assert_eq!(host.attached(), 0);
    }

    #[test]
    fn a_failed_attach_is_tried_again_ever_less_often() {
        let host = FakeHost::default();
        host.fail_attach("refused");
        let mut collector = of::<Fake>();
        for _ in 0..100 {
            let report = collector.tick(&host);
            assert_eq!(
                report.coverage,
                Coverage::Failed {
                    why: "refused".to_owned()
                }
            );
        }
        let tries = collector.tick(&host).errors.attach;
        assert!((5..10).contains(&tries), "{tries} tries in 100 ticks");
    }

    #[test]
    fn an_unsupported_kernel_is_said_with_its_remedy() {
        let host = FakeHost::default();
        host.refuse();
        let report = of::<Fake>().tick(&host);
        assert!(matches!(report.coverage, Coverage::Unsupported { .. }));
        assert_eq!(report.probes[0].missing[0].remedy, "boot another kernel");
        assert_eq!(report.errors, Errors::default(), "a fact, not an error");
    }
}
