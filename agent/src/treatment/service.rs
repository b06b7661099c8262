//! The engine among its users: the tick, the command line, alerts.

use std::{
    io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use anyhow::Context as _;
use tokio::sync::watch;
use tracing::error;

use super::{Ask, AskOutcome, Engine, Now, Policy, Refusal, SysctlsAndSwitches};
use crate::{
    durable::Directory,
    kernel::sysctl,
    model::{Ending, NodeReport, Registry, Reports, Resolution, Run, TreatmentCounts},
    time::{since_boot, unix_seconds},
};

/// While a file of this name is in the state directory, nothing is begun.
const PAUSED: &str = "paused";

/// The one engine of a node, shared. Every call may block for as long as a write to a
/// disk takes.
#[derive(Debug)]
pub struct TreatmentService {
    engine: Mutex<Engine>,
    directory: PathBuf,
    /// All runs as they are now.
    runs: watch::Sender<Vec<Run>>,
}

/// All runs as they are now, for those who cannot wait for a disk.
pub type Runs = watch::Receiver<Vec<Run>>;

/// How treatments are after a report.
#[derive(Debug)]
pub struct Stepped {
    /// Those that are active, and the last that have ended, oldest first.
    pub runs: Vec<Run>,
    /// Why none can be recorded, if so.
    pub trouble: Option<String>,
    /// What was decided since the agent started.
    pub counts: TreatmentCounts,
}

/// What came of something that is done once at most.
#[derive(Clone, Debug, PartialEq)]
pub enum Once {
    /// It was done before; how that stands.
    Already(Run),
    /// It was decided now.
    Decided(AskOutcome),
}

/// What a resolved alert has brought about.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// It had begun nothing that is still active.
    Nothing,
    /// What it had begun goes on, as it has fired again since it was resolved.
    FiresAgain(Run),
    /// What it had begun, as it ended.
    Ended(Run),
    /// What it had begun goes on, as a finding of this kind is still there.
    StillNeeded(Run, String),
}

/// Why something was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// The reason.
    pub refusal: Refusal,
    /// Whether it passes of itself, in a minute or two.
    pub passes: bool,
}

impl TreatmentService {
    /// Takes up what is in the state directory, of which the caller has the lock.
    pub fn open(registry: Registry, policy: Policy, directory: &Path) -> Self {
        let boot = match sysctl::read("kernel.random.boot_id") {
            Ok(Some(boot)) => boot,
            // Without it every reboot looks like this boot: values that are not ours any
            // more are still left as they are.
            Ok(None) | Err(_) => String::new(),
        };
        let Registry {
            treatments,
            switches,
        } = registry;
        let writer = Box::new(SysctlsAndSwitches(switches));
        let engine = Engine::open(treatments, policy, writer, directory, boot, now());
        Self::sharing(engine, directory)
    }

    /// With an engine of a test.
    #[cfg(test)]
    pub(super) fn of(engine: Engine, directory: &Path) -> Self {
        Self::sharing(engine, directory)
    }

    fn sharing(engine: Engine, directory: &Path) -> Self {
        Self {
            runs: watch::Sender::new(engine.runs().to_vec()),
            engine: Mutex::new(engine),
            directory: directory.to_owned(),
        }
    }

    /// Where all runs appear as soon as they change.
    pub fn runs(&self) -> Runs {
        self.runs.subscribe()
    }

    /// Resumes what the last agent has undone because it was stopped. For an agent that stays.
    pub fn resume(&self) {
        self.engine().resume(now());
    }

    /// Watches, begins and ends what the report calls for. What there is then.
    pub fn step(&self, report: &NodeReport) -> Stepped {
        let mut engine = self.engine();
        engine.step(report, now());
        Stepped {
            runs: engine.runs().to_vec(),
            trouble: engine.journal_trouble(),
            counts: engine.counts().clone(),
        }
    }

    /// Does what is asked for, given the last report.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn ask(&self, ask: &Ask, reports: &Reports) -> Result<AskOutcome, Refusal> {
        let last = reports.borrow().clone();
        let last = last.ok_or_else(|| Refusal::NotMeasured(ask.ailment.clone()))?;
        self.engine().ask(ask, &last.report, now())
    }

    /// Does what an alert asks for, if it has not had it done already, before it was resolved and
    /// came back maybe, and no other alert has; this is known from the journal, so that no restart
    /// does it twice.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn ask_once(&self, ask: &Ask, reports: &Reports) -> Result<Once, NotNow> {
        let last = reports.borrow().clone();
        let mut engine = self.engine();
        let mut known = engine.runs().iter().rev();
        let theirs = |run: &&Run| {
            run.trigger.knows(&ask.trigger)
                || run.is_active() && run.trigger.is_alert_of(&ask.trigger)
        };
        let (report, now) = (last.as_ref().map(|snapshot| &*snapshot.report), now());
        if let Some(run) = known.find(theirs).cloned() {
            if let Some(starts_at) = ask.trigger.starts_at().filter(|_| run.is_active()) {
                engine.note_alert(run.id, starts_at, now);
            }
            return Ok(Once::Already(run));
        }
        let decision = match report {
            Some(report) => engine.ask(ask, report, now),
            None => engine
                .known(ask)
                .and(Err(Refusal::NotMeasured(ask.ailment.clone()))),
        };
        match decision {
            Ok(decision) => Ok(Once::Decided(decision)),
            Err(refusal) => match engine.runs().iter().find(|it| refusal.is_of(it)) {
                Some(run) if does(run, ask) => Ok(Once::Already(run.clone())),
                _ => {
                    let lately = report.is_some_and(|it| engine.was_found_lately(ask, it, now));
                    Err(NotNow {
                        passes: refusal.passes(engine.runs(), report, lately),
                        refusal,
                    })
                }
            },
        }
    }

    /// Ends what an alert of this kind of finding has begun and is still active, unless another
    /// kind that it is against is still found: then it goes on until its time is over.
    ///
    /// # Errors
    ///
    /// As [`Engine::undo`].
    pub fn resolve(
        &self,
        resolution: &Resolution,
        kind: Option<&str>,
        reports: &Reports,
    ) -> Result<Resolved, Refusal> {
        let last = reports.borrow().clone();
        let mut engine = self.engine();
        let active = || engine.runs().iter().filter(|run| run.is_active());
        let Some(run) = active().find(|run| run.trigger.is_over_with(resolution)) else {
            let fires = active().find(|run| run.trigger.is_alert(&resolution.fingerprint));
            return Ok(fires.map_or(Resolved::Nothing, |run| Resolved::FiresAgain(run.clone())));
        };
        let report = last.as_ref().map(|snapshot| &*snapshot.report);
        if let (Some(kind), Some(report)) = (kind, report)
            && let Some(other) = still_found(run, kind, report)
        {
            return Ok(Resolved::StillNeeded(run.clone(), other));
        }
        let (id, now) = (run.id, now());
        if let Some(ends_at) = &resolution.ends_at {
            engine.note_alert(id, ends_at, now);
        }
        let mut ended = engine.undo(Some(id), Ending::Resolved, now)?;
        Ok(ended.pop().map_or(Resolved::Nothing, Resolved::Ended))
    }

    /// Ends one run, or all, and puts back what they have changed.
    ///
    /// # Errors
    ///
    /// As [`Engine::undo`].
    pub fn undo(&self, id: Option<u64>, ending: Ending) -> Result<Vec<Run>, Refusal> {
        self.engine().undo(id, ending, now())
    }

    /// All runs that are known, and why nothing can be begun, if so.
    pub fn status(&self) -> (Vec<Run>, Option<String>) {
        let engine = self.engine();
        (engine.runs().to_vec(), engine.trouble())
    }

    /// The agent ends.
    pub fn leave(&self) {
        self.engine().leave(now());
    }

    /// The engine, knowing whether it is paused now. A panic of an earlier call cannot
    /// leave more behind than a kill could, and that is in the journal.
    fn engine(&self) -> LockedEngine<'_> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.pause(is_paused(&self.directory));
        LockedEngine {
            engine,
            runs: &self.runs,
        }
    }
}

/// The engine while somebody has it. When it is let go, its runs are told.
struct LockedEngine<'a> {
    engine: MutexGuard<'a, Engine>,
    runs: &'a watch::Sender<Vec<Run>>,
}

impl Deref for LockedEngine<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for LockedEngine<'_> {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Drop for LockedEngine<'_> {
    fn drop(&mut self) {
        let now = self.engine.runs();
        self.runs.send_if_modified(|known| {
            let changed = known.as_slice() != now;
            if changed {
                *known = now.to_vec();
            }
            changed
        });
    }
}

/// Whether a run is what somebody asks for, whoever has begun it.
fn does(run: &Run, ask: &Ask) -> bool {
    let against = ask.against.as_ref();
    let with = ask.treatment.as_ref();
    run.ailment == ask.ailment
        && with.is_none_or(|treatment| *treatment == run.treatment)
        && against.is_none_or(|kind| run.against.contains(kind))
}

/// A kind of finding beside this one that a run is against, and that is there.
fn still_found(run: &Run, beside: &str, report: &NodeReport) -> Option<String> {
    let mut ailments = report.ailments.iter();
    let ailment = ailments.find(|it| it.name == run.ailment)?;
    let mut kinds = ailment.findings.iter().map(|finding| &finding.kind);
    kinds
        .find(|kind| *kind != beside && run.against.contains(kind))
        .cloned()
}

/// Whether treatments are paused, by the file or by the command, which makes it. When in
/// doubt they are.
pub fn is_paused(directory: &Path) -> bool {
    let file = directory.join(PAUSED);
    match file.symlink_metadata() {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            let file = file.display();
            error!("look for {file}: {error}; treatments are paused");
            true
        }
    }
}

/// Makes the file, or removes it.
///
/// # Errors
///
/// When that is not possible.
pub fn pause(directory: &Directory, paused: bool) -> anyhow::Result<()> {
    let file = directory.path(PAUSED);
    if paused {
        let made = directory.touch(PAUSED);
        return made.with_context(|| format!("make {}", file.display()));
    }
    let removed = directory.remove(PAUSED);
    removed.with_context(|| format!("remove {}", file.display()))
}

/// What time it is.
pub(super) fn now() -> Now {
    Now {
        boot_seconds: since_boot().as_secs_f64(),
        unix_seconds: unix_seconds(SystemTime::now()),
    }
}
