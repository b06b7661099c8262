//! What outlives the agent, and what only this agent knows.

use tracing::warn;

use super::{Engine, Now};
use crate::{
    model::{Ending, Run, RunState},
    treatment::{guard::Refusal, journal::Step},
};

impl Engine {
    /// Why nothing can be begun, if so.
    pub fn trouble(&self) -> Option<String> {
        let paused = || self.paused.then(|| Refusal::Paused.to_string());
        self.journal_trouble().or_else(paused)
    }

    /// Why nothing can be recorded, if so.
    pub fn journal_trouble(&self) -> Option<String> {
        match &self.journal {
            Err(why) => Some(why.clone()),
            Ok(journal) => journal.trouble().map(str::to_owned),
        }
    }

    /// Why the journal must be left as it is, if so.
    pub(super) fn damage(&self) -> Option<Refusal> {
        let why = match &self.journal {
            Err(why) => Some(why.as_str()),
            Ok(journal) => journal.damage(),
        };
        why.map(|why| Refusal::Journal(why.to_owned()))
    }

    /// Takes in that the alert of a run has begun again, or ended, at a time, so that the next
    /// agent knows it too. What cannot be recorded is known to this agent alone.
    pub(in crate::treatment) fn note_alert(&mut self, id: u64, at: &str, now: Now) {
        let Some(run) = self.runs.iter_mut().find(|run| run.id == id) else {
            return;
        };
        if run.trigger.note(at) {
            let run = run.clone();
            if let Err(error) = self.record(&run, Step::Announced, now) {
                warn!(id, "that its alert fired again is not recorded: {error:#}");
            }
        }
    }

    /// What is not on record is not left in force.
    pub(super) fn give_up_on_journal(
        &mut self,
        index: usize,
        error: &anyhow::Error,
        now: Now,
    ) -> bool {
        let why = format!("{error:#}");
        self.end(index, RunState::Undone, Ending::Refused, &why, now);
        false
    }

    /// The run says that only this agent knows of its end, for the one who has asked for it.
    pub(super) fn tell_unrecorded(&mut self, index: usize, error: &anyhow::Error) {
        let run = &self.runs[index];
        let mut changes = run.changes.iter();
        let next = if changes.any(|change| self.writer.ends_with_agent(&change.key)) {
            "this agent records it as soon as it can; an agent that starts before switches it on \
             again until its time is over"
        } else {
            "the next agent will not set it again, because it finds the value as it was before"
        };
        let note = format!(
            "{}; {}, but not recorded: {next} ({error:#})",
            run.why,
            run.state.name()
        );
        let run = &mut self.runs[index];
        self.unrecorded
            .insert(run.id, std::mem::replace(&mut run.why, note));
    }

    /// Records what could not be recorded when it happened.
    pub(super) fn record_late(&mut self, now: Now) {
        if let Ok(journal) = &mut self.journal {
            journal.try_again(&self.runs);
        }
        for (id, why) in self.unrecorded.clone() {
            if let Some(index) = self.runs.iter().position(|run| run.id == id) {
                let run = Run {
                    why,
                    ..self.runs[index].clone()
                };
                if self.record(&run, Step::Holds, now).is_err() {
                    return;
                }
                self.runs[index] = run;
            }
            self.unrecorded.remove(&id);
        }
    }

    pub(super) fn record(&mut self, run: &Run, step: Step, now: Now) -> anyhow::Result<()> {
        match &mut self.journal {
            Ok(journal) => journal.append(run, &self.runs, step, now.unix_seconds),
            Err(why) => Err(anyhow::anyhow!("{why}")),
        }
    }
}
