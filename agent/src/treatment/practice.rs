//! The engine among its users: the tick, the command line, alerts.

use std::{
    fs, io,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use anyhow::Context as _;
use tokio::sync::watch;
use tracing::error;

use super::{
    Ask, Counts, Course, Decision, Ending, Engine, Now, Policy, Refusal, SysctlsAnd, Trigger,
};
use crate::{
    ailments,
    kernel::sysctl,
    monitor::Reports,
    report::NodeReport,
    time::{since_boot, unix_seconds},
};

/// While a file of this name is in the state directory, nothing is begun.
const PAUSED: &str = "paused";

/// The one engine of a node, shared. Every call may block for as long as a write to a
/// disk takes.
#[derive(Debug)]
pub struct Practice {
    engine: Mutex<Engine>,
    directory: PathBuf,
    /// All courses as they are now.
    courses: watch::Sender<Vec<Course>>,
}

/// All courses as they are now, for those who cannot wait for a disk.
pub type Courses = watch::Receiver<Vec<Course>>;

/// What came of something that is done once at most.
#[derive(Clone, Debug, PartialEq)]
pub enum Once {
    /// It was done before; how that stands.
    Already(Course),
    /// It was decided now.
    Decided(Decision),
}

/// What a resolved alert has brought about.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// It had begun nothing that is still active.
    Nothing,
    /// What it had begun, as it ended.
    Ended(Course),
    /// What it had begun goes on, as a finding of this kind is still there.
    StillNeeded(Course, String),
}

/// Why something was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// The reason.
    pub refusal: Refusal,
    /// Whether it passes of itself, in a minute or two.
    pub passes: bool,
}

impl Practice {
    /// Takes up what is in the state directory, of which the caller has the lock.
    pub fn open(policy: Policy, directory: &Path) -> Self {
        let boot = match sysctl::read("kernel.random.boot_id") {
            Ok(Some(boot)) => boot,
            // Without it every reboot looks like this boot: values that are not ours any
            // more are still left as they are.
            Ok(None) | Err(_) => String::new(),
        };
        let treatments = ailments::treatments();
        let hands = Box::new(SysctlsAnd(ailments::switches()));
        let engine = Engine::open(treatments, policy, hands, directory, boot, now());
        Self::sharing(engine, directory)
    }

    /// With an engine of a test.
    #[cfg(test)]
    pub(super) fn of(engine: Engine, directory: &Path) -> Self {
        Self::sharing(engine, directory)
    }

    fn sharing(engine: Engine, directory: &Path) -> Self {
        Self {
            courses: watch::Sender::new(engine.courses().to_vec()),
            engine: Mutex::new(engine),
            directory: directory.to_owned(),
        }
    }

    /// Where all courses appear as soon as they change.
    pub fn courses(&self) -> Courses {
        self.courses.subscribe()
    }

    /// Watches, begins and ends what the report calls for. What there is then.
    pub fn step(&self, report: &NodeReport) -> (Vec<Course>, Counts) {
        let mut engine = self.engine();
        engine.step(report, now());
        (engine.courses().to_vec(), engine.counts().clone())
    }

    /// Does what is asked for, given the last report.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn ask(&self, ask: &Ask, reports: &Reports) -> Result<Decision, Refusal> {
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
        let mut known = engine.courses().iter().rev();
        let theirs = |course: &&Course| {
            course.trigger == ask.trigger
                || course.is_active() && course.trigger.is_alert_of(&ask.trigger)
        };
        if let Some(course) = known.find(theirs) {
            return Ok(Once::Already(course.clone()));
        }
        let report = last.as_ref().map(|snapshot| &*snapshot.report);
        let decision = match report {
            Some(report) => engine.ask(ask, report, now()),
            None => engine
                .known(ask)
                .and(Err(Refusal::NotMeasured(ask.ailment.clone()))),
        };
        match decision {
            Ok(decision) => Ok(Once::Decided(decision)),
            Err(refusal) => match engine.courses().iter().find(|it| refusal.is_of(it)) {
                Some(course) if does(course, ask) => Ok(Once::Already(course.clone())),
                _ => Err(NotNow {
                    passes: refusal.passes(engine.courses(), report),
                    refusal,
                }),
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
        trigger: &Trigger,
        kind: Option<&str>,
        reports: &Reports,
    ) -> Result<Resolved, Refusal> {
        let last = reports.borrow().clone();
        let mut engine = self.engine();
        let mut active = engine.courses().iter().filter(|course| course.is_active());
        let Some(course) = active.find(|course| course.trigger.is_over_with(trigger)) else {
            return Ok(Resolved::Nothing);
        };
        let report = last.as_ref().map(|snapshot| &*snapshot.report);
        if let (Some(kind), Some(report)) = (kind, report)
            && let Some(other) = still_found(course, kind, report)
        {
            return Ok(Resolved::StillNeeded(course.clone(), other));
        }
        let id = course.id;
        let mut ended = engine.undo(Some(id), Ending::Resolved, now())?;
        Ok(ended.pop().map_or(Resolved::Nothing, Resolved::Ended))
    }

    /// Ends one course, or all, and puts back what they have changed.
    ///
    /// # Errors
    ///
    /// As [`Engine::undo`].
    pub fn undo(&self, id: Option<u64>, ending: Ending) -> Result<Vec<Course>, Refusal> {
        self.engine().undo(id, ending, now())
    }

    /// All courses that are known, and why nothing can be begun, if so.
    pub fn status(&self) -> (Vec<Course>, Option<String>) {
        let engine = self.engine();
        (engine.courses().to_vec(), engine.trouble())
    }

    /// The agent ends.
    pub fn leave(&self) {
        self.engine().leave(now());
    }

    /// The engine, knowing whether it is paused now. A panic of an earlier call cannot
    /// leave more behind than a kill could, and that is in the journal.
    fn engine(&self) -> Held<'_> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.pause(is_paused(&self.directory));
        Held {
            engine,
            courses: &self.courses,
        }
    }
}

/// The engine while somebody has it. When it is let go, its courses are told.
struct Held<'a> {
    engine: MutexGuard<'a, Engine>,
    courses: &'a watch::Sender<Vec<Course>>,
}

impl Deref for Held<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let now = self.engine.courses();
        self.courses.send_if_modified(|known| {
            let changed = known.as_slice() != now;
            if changed {
                *known = now.to_vec();
            }
            changed
        });
    }
}

/// Whether a course is what somebody asks for, whoever has begun it.
fn does(course: &Course, ask: &Ask) -> bool {
    let against = ask.against.as_ref();
    let with = ask.treatment.as_ref();
    course.ailment == ask.ailment
        && with.is_none_or(|treatment| *treatment == course.treatment)
        && against.is_none_or(|kind| course.against.contains(kind))
}

/// A kind of finding beside this one that a course is against, and that is there.
fn still_found(course: &Course, beside: &str, report: &NodeReport) -> Option<String> {
    let mut ailments = report.ailments.iter();
    let ailment = ailments.find(|it| it.name == course.ailment)?;
    let mut kinds = ailment.findings.iter().map(|finding| &finding.kind);
    kinds
        .find(|kind| *kind != beside && course.against.contains(kind))
        .cloned()
}

/// Whether treatments are paused, by the file or by the command, which makes it. When in
/// doubt they are.
pub fn is_paused(directory: &Path) -> bool {
    let file = directory.join(PAUSED);
    file.try_exists().unwrap_or_else(|error| {
        error!(
            "look for {}: {error}; treatments are paused",
            file.display()
        );
        true
    })
}

/// Makes the file, or removes it.
///
/// # Errors
///
/// When that is not possible.
pub fn pause(directory: &Path, paused: bool) -> anyhow::Result<()> {
    let file = directory.join(PAUSED);
    if paused {
        return fs::write(&file, "").with_context(|| format!("make {}", file.display()));
    }
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", file.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What time it is.
pub(super) fn now() -> Now {
    Now {
        boot_seconds: since_boot().as_secs_f64(),
        unix_seconds: unix_seconds(SystemTime::now()),
    }
}
