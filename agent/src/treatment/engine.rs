//! Begins treatments, watches them, and ends them.
//!
//! It reads no clock: whoever calls says what time it is. All it does to the kernel goes
//! through [`SysctlWriter`].

mod recording;
mod recovery;
mod resume;

pub(super) use recovery::permitted;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use tracing::{error, info, warn};

use super::{
    foreign::Values,
    guard::{Guard, Refusal},
    journal::{self, Journal, Step},
    policy::{AtExit, Policy},
    writer::{SysctlTarget, SysctlWriter},
};

use crate::model::{
    AilmentReport, Change, Ending, HealthSnapshot, NodeReport, Proposal, Run, RunState, Treatment,
    TreatmentCounts, Trigger,
};

/// Seconds for which an alert may be after a finding that is over.
const LATELY: f64 = 300.0;

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// `CLOCK_BOOTTIME`, seconds.
    pub boot_seconds: f64,
    /// Seconds since the epoch, for people.
    pub unix_seconds: f64,
}

/// What somebody wants to be done.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The ailment to be treated.
    pub ailment: String,
    /// With what; the first that may be, if nobody says.
    pub treatment: Option<String>,
    /// The kind of finding that it has to be against; any, if nobody says.
    pub against: Option<String>,
    /// Who asks.
    pub trigger: Trigger,
    /// For how long; as configured, if nobody says.
    pub duration: Option<Duration>,
    /// Whether to do it.
    pub intent: Intent,
    /// Though the node is healthy, or the treatment has just ended.
    pub force: bool,
}

impl Ask {
    /// What an ailment proposes that is asked for.
    fn selects<'r>(&self, ailment: &'r AilmentReport) -> impl Iterator<Item = &'r Proposal> {
        let is_selected = |proposal: &&Proposal| {
            let named = self.treatment.as_ref();
            let against = self.against.as_ref();
            named.is_none_or(|named| *named == proposal.treatment)
                && against.is_none_or(|kind| proposal.against.contains(kind))
        };
        ailment.proposals.iter().filter(is_selected)
    }
}

/// Whether something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Only to be told.
    DryRun,
    /// If the configuration allows it without being told to, else only to be told.
    AsConfigured,
    /// Yes.
    Apply,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum AskOutcome {
    /// It was begun.
    Begun(Run),
    /// It would be.
    Would(Run),
}

/// All treatments of this node.
#[derive(Debug)]
pub struct Engine {
    treatments: Vec<(&'static str, &'static Treatment)>,
    policy: Policy,
    writer: Box<dyn SysctlWriter>,
    /// What is known of all runs outlives the agent here; else why it could not be read.
    journal: Result<Journal, String>,
    boot: String,
    runs: Vec<Run>,
    /// Runs that are over, which the journal does not know, with what their `why` is without that.
    unrecorded: BTreeMap<u64, String>,
    counts: TreatmentCounts,
    /// Whether nothing may begin.
    paused: bool,
    /// Whether the agent has left: nothing begins any more.
    left: bool,
    /// What is known of the values that treatments would change.
    values: Values,
    /// When each kind of finding was there last, seconds since boot.
    found: BTreeMap<String, f64>,
    /// What was refused to the agent itself, so that it is said once.
    logged: BTreeSet<(&'static str, &'static str)>,
}

impl Engine {
    /// Takes up what the journal of a state directory tells: what cannot be valid any
    /// more is put back or given up, the rest goes on. A journal that cannot be read
    /// leaves an engine that refuses everything, and says why. One that cannot be written leaves
    /// an engine that ends what it tells and begins nothing.
    pub fn open(
        treatments: Vec<(&'static str, &'static Treatment)>,
        policy: Policy,
        writer: Box<dyn SysctlWriter>,
        directory: &Path,
        boot: String,
        now: Now,
    ) -> Self {
        let journal = Journal::open(directory, |run| permitted(&treatments, run, &boot));
        Self::with(journal, treatments, policy, writer, boot, now)
    }

    /// The same, with a journal that was opened with [`permitted`].
    pub(super) fn with(
        journal: anyhow::Result<(Journal, Vec<Run>)>,
        treatments: Vec<(&'static str, &'static Treatment)>,
        policy: Policy,
        writer: Box<dyn SysctlWriter>,
        boot: String,
        now: Now,
    ) -> Self {
        let (journal, runs) = match journal {
            Ok((journal, runs)) => {
                if let Some(why) = journal.trouble() {
                    error!("no treatment will be begun: {why}");
                }
                (Ok(journal), runs)
            }
            Err(why) => {
                error!("no treatment will be begun: {why:#}");
                (Err(format!("{why:#}")), Vec::new())
            }
        };
        let mut engine = Self {
            treatments,
            policy,
            writer,
            journal,
            boot,
            runs,
            unrecorded: BTreeMap::new(),
            counts: TreatmentCounts::default(),
            paused: false,
            left: false,
            values: Values::default(),
            found: BTreeMap::new(),
            logged: BTreeSet::new(),
        };
        engine.recover(now);
        engine
    }

    /// All runs that are known, in the order of their beginnings.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// What was decided since the agent began.
    pub fn counts(&self) -> &TreatmentCounts {
        &self.counts
    }

    /// Whether what is asked for is against a finding of the last minutes, though it may be over.
    /// Many findings come and go, and an alert tells of more than one reading.
    pub(super) fn was_found_lately(&self, ask: &Ask, report: &NodeReport, now: Now) -> bool {
        let ailment = report.ailments.iter().find(|it| it.name == ask.ailment);
        let proposals = ailment.into_iter().flat_map(|it| ask.selects(it));
        let found = |kind| self.found.get(kind);
        let mut found = proposals.flat_map(|it| &it.against).filter_map(found);
        found.any(|found| now.boot_seconds - found < LATELY)
    }

    /// From now on nothing is begun, or everything may be again.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Does what is asked for, if all allows it.
    ///
    /// # Errors
    ///
    /// The first reason against it; nothing is changed then.
    pub fn ask(&mut self, ask: &Ask, report: &NodeReport, now: Now) -> Result<AskOutcome, Refusal> {
        let mut decision = self.decide(ask, report, now);
        self.name_writers(&mut decision);
        self.count(ask, &decision);
        decision
    }

    /// Who else may write the keys. To look for them takes a look at each process.
    fn name_writers(&self, decision: &mut Result<AskOutcome, Refusal>) {
        match decision {
            Ok(AskOutcome::Would(run)) => run.writers = self.writers_of(&run.changes),
            Ok(AskOutcome::Begun(_)) => {}
            Err(refusal) => self.name_writers_in(refusal),
        }
    }

    fn name_writers_in(&self, refusal: &mut Refusal) {
        if let Refusal::Foreign(write) = refusal {
            write.writers = self.writer.likely_writers(write.key());
        }
    }

    /// Programs and files that are known to set these keys, and what earlier runs met.
    fn writers_of(&self, changes: &[Change]) -> Vec<String> {
        let keys: BTreeSet<_> = changes.iter().map(|change| change.key.as_str()).collect();
        let known = keys.iter().flat_map(|key| {
            let writers = self.writer.likely_writers(key).into_iter();
            writers.map(move |writer| format!("{key}: {writer}"))
        });
        let met = self.runs.iter().rev().find(|run| {
            run.state == RunState::Overridden && keys.iter().any(|key| run.has_key(key))
        });
        let met = met.map(|run| format!("treatment {} met another writer: {}", run.id, run.why));
        known.chain(met).collect()
    }

    /// What was begun is counted as it goes.
    fn count(&mut self, ask: &Ask, decision: &Result<AskOutcome, Refusal>) {
        match decision {
            Ok(AskOutcome::Begun(_)) => {}
            Ok(AskOutcome::Would(run)) => {
                self.counts
                    .outcome(&run.treatment, ask.trigger.name(), "dry-run");
            }
            Err(refusal) => self.counts.refusal(refusal.reason()),
        }
    }

    fn decide(&mut self, ask: &Ask, report: &NodeReport, now: Now) -> Result<AskOutcome, Refusal> {
        if let Some(refusal) = self.damage() {
            return Err(refusal);
        }
        let (proposal, ailment) = self.select(ask, report, now)?;
        let run = self.run(ask, proposal, ailment, report, now);
        if !self.is_to_begin(ask, &run.treatment) {
            return Ok(AskOutcome::Would(run));
        }
        if self.paused {
            return Err(Refusal::Paused);
        }
        if self.left {
            return Err(Refusal::Ending);
        }
        self.begin(run, now).map(AskOutcome::Begun)
    }

    fn is_to_begin(&self, ask: &Ask, treatment: &str) -> bool {
        match ask.intent {
            Intent::DryRun => false,
            Intent::AsConfigured => self.policy.mode(treatment) >= Policy::needs(&ask.trigger),
            Intent::Apply => true,
        }
    }

    /// Of the treatments that nothing is against the first that is to begin, else the
    /// first; where there is none, the first reason.
    fn select<'r>(
        &self,
        ask: &Ask,
        report: &'r NodeReport,
        now: Now,
    ) -> Result<(&'r Proposal, &'r AilmentReport), Refusal> {
        self.known(ask)?;
        let ailment = report.ailments.iter().find(|it| it.name == ask.ailment);
        let ailment = ailment.filter(|it| !it.reading.is_null());
        let ailment = ailment.ok_or_else(|| Refusal::NotMeasured(ask.ailment.clone()))?;
        let guard = Guard {
            policy: &self.policy,
            runs: &self.runs,
            ask,
            boot: &self.boot,
            now,
            values: &self.values,
        };
        let (mut possible, mut against) = (None, None);
        for proposal in ask.selects(ailment) {
            let Some(treatment) = self.treatment(&proposal.treatment) else {
                continue;
            };
            match guard.check(treatment, proposal, ailment) {
                Ok(()) if self.is_to_begin(ask, treatment.name) => return Ok((proposal, ailment)),
                Ok(()) => possible = possible.or(Some(proposal)),
                Err(refusal) => against = against.or(Some(refusal)),
            }
        }
        match possible {
            Some(proposal) => Ok((proposal, ailment)),
            None => Err(against.unwrap_or_else(|| Refusal::NoTreatment(ask.ailment.clone()))),
        }
    }

    /// Whether there is such an ailment, and such a treatment of it.
    pub(super) fn known(&self, ask: &Ask) -> Result<(), Refusal> {
        let of_ailment = self.treatments.iter().filter(|(it, _)| *it == ask.ailment);
        let names: Vec<_> = of_ailment.map(|(_, treatment)| treatment.name).collect();
        if names.is_empty() {
            let ailments: BTreeSet<_> = self.treatments.iter().map(|(it, _)| *it).collect();
            let ailments: Vec<_> = ailments.into_iter().collect();
            return Err(Refusal::Unknown(format!(
                "ailment {:?} has no treatment; these have: {}",
                ask.ailment,
                ailments.join(", ")
            )));
        }
        match &ask.treatment {
            Some(wanted) if !names.contains(&wanted.as_str()) => Err(Refusal::Unknown(format!(
                "{} has no treatment {wanted:?}; it has {}",
                ask.ailment,
                names.join(", ")
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn treatment(&self, name: &str) -> Option<&'static Treatment> {
        let mut all = self.treatments.iter().map(|(_, treatment)| *treatment);
        all.find(|treatment| treatment.name == name)
    }

    fn run(
        &self,
        ask: &Ask,
        proposal: &Proposal,
        ailment: &AilmentReport,
        report: &NodeReport,
        now: Now,
    ) -> Run {
        let lasts = ask.duration.unwrap_or(self.policy.duration).as_secs_f64();
        let watched = self.policy.watch.as_secs_f64().min(lasts);
        Run {
            id: self.runs.last().map_or(1, |last| last.id + 1),
            treatment: proposal.treatment.clone(),
            ailment: ailment.name.clone(),
            against: proposal.against.clone(),
            trigger: ask.trigger.clone(),
            state: RunState::Intended,
            why: ailment
                .findings
                .iter()
                .find(|finding| proposal.against.contains(&finding.kind))
                .map_or_else(|| "asked for".to_owned(), |finding| finding.summary.clone()),
            changes: proposal.changes.clone(),
            began_unix_seconds: now.unix_seconds,
            ends_unix_seconds: now.unix_seconds + lasts,
            boot: self.boot.clone(),
            began: now.boot_seconds,
            watched_until: now.boot_seconds + watched,
            ends: now.boot_seconds + lasts,
            ended: None,
            ending: None,
            reapplied: 0,
            before: HealthSnapshot::of(report),
            writers: Vec::new(),
        }
    }

    /// Records, writes, reads back, records.
    fn begin(&mut self, mut run: Run, now: Now) -> Result<Run, Refusal> {
        self.look(&mut run.changes)?;
        if run.changes.is_empty() {
            return Err(Refusal::Nothing);
        }
        run.writers = self.writers_of(&run.changes);
        for writer in &run.writers {
            warn!(
                id = run.id,
                treatment = run.treatment,
                "may be set back: {writer}"
            );
        }
        self.record(&run, Step::Announced, now)
            .map_err(|error| Refusal::Journal(format!("{error:#}")))?;
        journal::forget(&mut self.runs);
        self.runs.push(run);
        let index = self.runs.len() - 1;
        self.write_or_end(index, RunState::Applied, now);
        Ok(self.runs[index].clone())
    }

    /// What would be changed from what it is now, which is what undoing goes back to.
    fn look(&self, changes: &mut Vec<Change>) -> Result<(), Refusal> {
        for change in changes.iter_mut() {
            match self.writer.read(target(change)) {
                Ok(Some(now)) => change.from = now,
                Ok(None) => change.from = change.to,
                Err(error) => return Err(Refusal::Unsafe(error.to_string())),
            }
        }
        changes.retain(|change| change.from != change.to);
        Ok(())
    }

    /// Writes what is recorded, and records how far the run is then.
    fn write_or_end(&mut self, index: usize, state: RunState, now: Now) {
        match self.write(index) {
            Ok(()) => self.turn(index, state, now),
            Err(error) => {
                let why = format!("it could not be written: {error}");
                self.end(index, RunState::Failed, Ending::Refused, &why, now);
            }
        }
    }

    fn write(&mut self, index: usize) -> Result<(), String> {
        let changes = self.runs[index].changes.clone();
        let mut changes = changes.iter();
        changes.try_for_each(|change| self.put(change, change.to))
    }

    /// Writes a value, and sees whether the kernel has taken it: one vendor's once
    /// shifted the table of these sysctls by one.
    fn put(&mut self, change: &Change, value: u64) -> Result<(), String> {
        let target = target(change);
        self.values.wrote(target, value);
        self.writer
            .write(target, value)
            .map_err(|error| error.to_string())?;
        match self.writer.read(target) {
            Ok(Some(now)) if now == value => Ok(()),
            Ok(now) => {
                let now = now.map_or("nothing".to_owned(), |now| now.to_string());
                Err(format!(
                    "{} reads {now} after {value} was written",
                    change.key
                ))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Called with each report: watches what is active, and begins what the
    /// configuration allows the agent itself.
    pub fn step(&mut self, report: &NodeReport, now: Now) {
        let findings = report.ailments.iter().flat_map(|it| &it.findings);
        self.found
            .extend(findings.map(|it| (it.kind.clone(), now.boot_seconds)));
        self.record_late(now);
        for index in self.active() {
            self.watch(index, report, now);
        }
        journal::forget(&mut self.runs);
        self.observe(report);
        let ailments: BTreeSet<_> = self
            .treatments
            .iter()
            .map(|(ailment, _)| *ailment)
            .collect();
        for ailment in ailments {
            self.treat_by_itself(ailment, report, now);
        }
    }

    /// Learns from the report what others write. What is treated is watched in its run.
    fn observe(&mut self, report: &NodeReport) {
        let proposals = report.ailments.iter().flat_map(|it| &it.proposals);
        for change in proposals.flat_map(|it| &it.changes) {
            let touched = std::slice::from_ref(change);
            let mut active = self.runs.iter().filter(|run| run.is_active());
            if !active.any(|run| run.touches(touched)) {
                self.values.saw(change);
            }
        }
    }

    fn active(&self) -> Vec<usize> {
        let active = self.runs.iter().enumerate();
        let active = active.filter(|(_, run)| run.is_active());
        active.map(|(index, _)| index).collect()
    }

    fn watch(&mut self, index: usize, report: &NodeReport, now: Now) {
        let run = &self.runs[index];
        if run.ends <= now.boot_seconds {
            return self.end(
                index,
                RunState::Undone,
                Ending::Expired,
                "its time is over",
                now,
            );
        }
        if !self.hold(index, now) {
            return;
        }
        self.extend(index, report, now);
        let run = &self.runs[index];
        if run.state != RunState::Applied {
            return;
        }
        if let Some(harmed) = run.before.harmed(report, &run.ailment) {
            let why = format!("{harmed} has got worse since");
            return self.end(index, RunState::Undone, Ending::Harmful, &why, now);
        }
        if now.boot_seconds < run.watched_until {
            return;
        }
        if run.before.improved(report, &run.ailment, &run.against) {
            self.turn(index, RunState::Confirmed, now);
        } else {
            let why = format!("{} is no better", run.ailment);
            self.end(index, RunState::Undone, Ending::Ineffective, &why, now);
        }
    }

    /// Sees to it that the values stay. Whether the run goes on.
    fn hold(&mut self, index: usize, now: Now) -> bool {
        for i in 0..self.runs[index].changes.len() {
            let change = self.runs[index].changes[i].clone();
            match self.writer.read(target(&change)) {
                Ok(Some(value)) if value == change.to => {
                    self.runs[index].changes[i].absent = false;
                }
                // Its module is unloaded; it comes back with its defaults.
                Ok(None) => self.runs[index].changes[i].absent = true,
                Ok(Some(value)) if value == change.from || change.absent => {
                    if !self.reapply(index, i, value, now) {
                        return false;
                    }
                }
                Ok(Some(value)) => {
                    self.saw_another(&change, value);
                    let likely_writers = self.likely_writers(&change);
                    let why = format!(
                        "another program set {} to {value}{likely_writers}",
                        change.key
                    );
                    self.end(index, RunState::Overridden, Ending::Contended, &why, now);
                    return false;
                }
                Err(error) => warn!(id = self.runs[index].id, "{error}"),
            }
        }
        true
    }

    fn saw_another(&mut self, change: &Change, value: u64) {
        self.values.observe(&change.key, change.netns, value);
    }

    /// Who may have changed it.
    fn likely_writers(&self, change: &Change) -> String {
        match self.writer.likely_writers(&change.key).join("; ") {
            likely_writers if likely_writers.is_empty() => String::new(),
            likely_writers => format!(" ({likely_writers})"),
        }
    }

    /// Writes a value again that is back where it was. Whether the run goes on.
    fn reapply(&mut self, index: usize, i: usize, found: u64, now: Now) -> bool {
        let change = self.runs[index].changes[i].clone();
        if !change.absent {
            self.saw_another(&change, found);
            let run = &self.runs[index];
            self.counts.drift(&run.treatment);
            if run.reapplied >= self.policy.reapply {
                let durable = self.treatment(&run.treatment).map_or("", |it| it.durable);
                let why = format!(
                    "{} was set back {} times{}; {durable}",
                    change.key,
                    run.reapplied + 1,
                    self.likely_writers(&change)
                );
                self.end(index, RunState::Overridden, Ending::Contended, &why, now);
                return false;
            }
            self.runs[index].reapplied += 1;
        }
        self.runs[index].changes[i].absent = false;
        self.runs[index].changes[i].from = found;
        if let Err(error) = self.record(&self.runs[index].clone(), Step::Announced, now) {
            return self.give_up_on_journal(index, &error, now);
        }
        match self.put(&change, change.to) {
            Ok(()) => info!(
                id = self.runs[index].id,
                key = change.key,
                netns = change.netns,
                found,
                "was set back; written again"
            ),
            Err(error) => warn!(id = self.runs[index].id, "{error}"),
        }
        true
    }

    /// New network namespaces have what the others had.
    fn extend(&mut self, index: usize, report: &NodeReport, now: Now) {
        let run = &self.runs[index];
        let Some(treatment) = self.treatment(&run.treatment) else {
            return;
        };
        let ailment = report.ailments.iter().find(|it| it.name == run.ailment);
        let proposals = ailment.map_or(&[][..], |it| &it.proposals);
        let same = proposals.iter().find(|it| it.treatment == run.treatment);
        let Some(proposal) = same.filter(|it| it.objection.is_none()) else {
            return;
        };
        let new = proposal
            .changes
            .iter()
            .filter(|change| !run.touches(std::slice::from_ref(change)));
        let mut new: Vec<_> = new.cloned().collect();
        if !treatment.allows(&new) || self.look(&mut new).is_err() || new.is_empty() {
            return;
        }
        let before = self.runs[index].changes.len();
        self.runs[index].changes.extend(new);
        if let Err(error) = self.record(&self.runs[index].clone(), Step::Announced, now) {
            self.runs[index].changes.truncate(before);
            warn!(id = self.runs[index].id, "not extended: {error:#}");
            return;
        }
        let new = self.runs[index].changes[before..].to_vec();
        for change in &new {
            match self.put(change, change.to) {
                Ok(()) => info!(id = self.runs[index].id, "extended: {change}"),
                Err(error) => warn!(id = self.runs[index].id, "not extended: {error}"),
            }
        }
    }

    fn treat_by_itself(&mut self, ailment: &'static str, report: &NodeReport, now: Now) {
        let ask = Ask {
            ailment: ailment.to_owned(),
            treatment: None,
            against: None,
            trigger: Trigger::Auto,
            duration: None,
            intent: Intent::AsConfigured,
            force: false,
        };
        let decision = self.decide(&ask, report, now);
        let outcome = match &decision {
            Ok(AskOutcome::Would(_)) => "dry-run",
            // It goes on, and is told of as what it is.
            Err(Refusal::Busy(_) | Refusal::NotMeasured(_)) => return,
            Ok(AskOutcome::Begun(_))
            | Err(Refusal::Healthy(_) | Refusal::Nothing | Refusal::NoTreatment(_)) => {
                self.logged.retain(|(it, _)| *it != ailment);
                return;
            }
            Err(refusal) => refusal.reason(),
        };
        if self.logged.insert((ailment, outcome)) {
            self.count(&ask, &decision);
            match decision {
                Ok(AskOutcome::Would(run) | AskOutcome::Begun(run)) => {
                    let mode = self.policy.mode(&run.treatment).name();
                    let (treatment, changes) = (&run.treatment, listed(&run.changes));
                    info!(ailment, "{treatment} would change {changes}; it is {mode}");
                }
                Err(mut refusal) => {
                    self.name_writers_in(&mut refusal);
                    info!(ailment, "not treated: {refusal}");
                }
            }
        }
    }

    /// Puts back what one run, or all, have changed. How they ended.
    ///
    /// # Errors
    ///
    /// When there is no such run, or it has ended; or the journal cannot be read. One that cannot
    /// be written keeps nothing from being undone.
    pub fn undo(&mut self, id: Option<u64>, ending: Ending, now: Now) -> Result<Vec<Run>, Refusal> {
        let chosen = self.active().into_iter();
        let chosen = chosen.filter(|index| id.is_none_or(|id| self.runs[*index].id == id));
        let chosen: Vec<_> = chosen.collect();
        if let Some(refusal) = self.damage().filter(|_| chosen.is_empty()) {
            return Err(refusal);
        }
        if let (Some(id), true) = (id, chosen.is_empty()) {
            return Err(Refusal::Unknown(format!("no treatment {id} is active")));
        }
        let why = match ending {
            Ending::Resolved => "its alert is resolved",
            Ending::AgentEnded => "the agent was stopped",
            _ => "asked for",
        };
        for index in &chosen {
            self.end(*index, RunState::Undone, ending, why, now);
        }
        let undone = chosen.into_iter().map(|index| self.runs[index].clone());
        let undone = undone.collect();
        journal::forget(&mut self.runs);
        Ok(undone)
    }

    /// The agent ends. What is asked for from now on, by a request or a report that was
    /// under way, is not begun: nobody would be there to end it.
    pub fn leave(&mut self, now: Now) {
        self.left = true;
        if self.policy.at_exit == AtExit::Undo && self.journal.is_ok() {
            // It fails only without a journal.
            let _ = self.undo(None, Ending::AgentEnded, now);
        }
    }

    /// Puts back what is still ours. A value that cannot be written is tried again with
    /// the next report, so the run stays active.
    fn end(&mut self, index: usize, state: RunState, ending: Ending, why: &str, now: Now) {
        let mut state = state;
        let mut why = why.to_owned();
        for change in self.runs[index].changes.clone() {
            match self.restore(&change) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    self.saw_another(&change, found);
                    state = RunState::Overridden;
                    why = format!("{why}; {} is {found} now, and was left so", change.key);
                }
                Err(error) => {
                    error!(
                        id = self.runs[index].id,
                        treatment = self.runs[index].treatment,
                        "cannot be undone, will be tried again: {error}"
                    );
                    let run = &mut self.runs[index];
                    run.ends = run.ends.min(now.boot_seconds);
                    run.why = format!("{why}, but {error}");
                    return;
                }
            }
        }
        self.close(index, state, ending, &why, now);
    }

    /// What is there instead, where it is not ours any more.
    fn restore(&mut self, change: &Change) -> Result<Option<u64>, String> {
        match self.writer.read(target(change)) {
            Ok(None) => Ok(None),
            Ok(Some(now)) if now == change.from => Ok(None),
            Ok(Some(now)) if now == change.to => self.put(change, change.from).map(|()| None),
            Ok(Some(now)) => Ok(Some(now)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn close(&mut self, index: usize, state: RunState, ending: Ending, why: &str, now: Now) {
        let run = &mut self.runs[index];
        run.ended = Some(now.boot_seconds);
        run.ending = Some(ending);
        run.why = why.to_owned();
        self.turn(index, state, now);
    }

    /// Records a state that holds already. One that cannot be recorded is found again by
    /// the next agent, which then finds nothing left to undo.
    fn turn(&mut self, index: usize, state: RunState, now: Now) {
        self.runs[index].state = state;
        let run = self.runs[index].clone();
        self.counts
            .outcome(&run.treatment, run.trigger.name(), run.outcome());
        tell(&run);
        if let Err(error) = self.record(&run, Step::Holds, now) {
            error!(id = run.id, "{error:#}");
            if run.is_active() {
                self.give_up_on_journal(index, &error, now);
            } else {
                self.tell_unrecorded(index, &error);
            }
        }
    }
}

fn target(change: &Change) -> SysctlTarget<'_> {
    SysctlTarget {
        key: &change.key,
        netns: change.netns,
    }
}

fn listed(changes: &[Change]) -> String {
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    changes.join(", ")
}

fn tell(run: &Run) {
    let Run {
        id,
        treatment,
        ailment,
        trigger,
        state,
        why,
        changes,
        ..
    } = run;
    let (trigger, state, changes) = (trigger.name(), state.name(), listed(changes));
    match run.state {
        RunState::Failed | RunState::Overridden => {
            warn!(id, treatment, ailment, trigger, changes, "{state}: {why}");
        }
        _ => info!(id, treatment, ailment, trigger, changes, "{state}: {why}"),
    }
}
