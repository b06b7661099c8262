//! What the stop of an agent has undone, and its successor sets again: an upgrade takes nothing away
//! for longer than it lasts, and without a successor nothing stays.

use tracing::{info, warn};

use super::{Engine, Now, target};
use crate::{
    model::{Change, Ending, Run, RunState, Trigger},
    treatment::{
        journal::Step,
        policy::{Mode, Policy},
    },
};

impl Engine {
    /// Sets again what the last agent has undone because it was stopped, if that was lately, its
    /// time is not over and nothing speaks against it. To be called once, by an agent that stays.
    pub fn resume(&mut self, now: Now) {
        if self.journal.is_err() || self.paused || self.left {
            return;
        }
        for index in 0..self.runs.len() {
            if !self.was_stopped(&self.runs[index], now) {
                continue;
            }
            match self.still_right(index) {
                Ok(changes) => self.set_again(index, changes, now),
                Err(why) => {
                    let Run { id, treatment, .. } = &self.runs[index];
                    info!(id, treatment, "not resumed: {why}");
                }
            }
        }
    }

    fn was_stopped(&self, run: &Run, now: Now) -> bool {
        let lately = now.boot_seconds - self.policy.resume_within.as_secs_f64();
        run.state == RunState::Undone
            && run.ending == Some(Ending::AgentEnded)
            && run.boot == self.boot
            && run.ended.is_some_and(|ended| ended > lately)
            && run.ends > now.boot_seconds
    }

    /// The changes that can be made again, or why they cannot.
    fn still_right(&self, index: usize) -> Result<Vec<Change>, String> {
        let run = &self.runs[index];
        let known = self.treatment(&run.treatment);
        if !known.is_some_and(|treatment| treatment.allows(&run.changes)) {
            return Err("this agent does not have it".to_owned());
        }
        let mode = self.policy.mode(&run.treatment);
        let least = match run.trigger {
            // A person has said --apply.
            Trigger::Manual { .. } => Mode::DryRun,
            Trigger::Alert { .. } | Trigger::Auto => Policy::needs(&run.trigger),
        };
        if mode < least {
            return Err(format!("it is {} now", mode.name()));
        }
        let since = &self.runs[index + 1..];
        if let Some(later) = since.iter().find(|later| later.touches(&run.changes)) {
            return Err(format!("treatment {} has come after it", later.id));
        }
        let mut changes = Vec::new();
        for change in &run.changes {
            match self.writer.read(target(change)) {
                Ok(Some(found)) if found == change.from => changes.push(change.clone()),
                Ok(Some(found)) => {
                    return Err(format!("{} is {found}, not {}", change.key, change.from));
                }
                // A network namespace or a module has gone.
                Ok(None) | Err(_) => {}
            }
        }
        if changes.is_empty() {
            return Err("what it changed is not there any more".to_owned());
        }
        Ok(changes)
    }

    /// Records, writes, records, as at its beginning.
    fn set_again(&mut self, index: usize, changes: Vec<Change>, now: Now) {
        let before = self.runs[index].clone();
        let run = &mut self.runs[index];
        let ended = run.ended.take().unwrap_or(now.boot_seconds);
        run.ending = None;
        run.changes = changes;
        run.state = RunState::Intended;
        run.watched_until += now.boot_seconds - ended;
        let was_watched = before.watched_until <= ended;
        "it was undone when the agent was stopped, and goes on".clone_into(&mut run.why);
        if let Err(error) = self.record(&self.runs[index].clone(), Step::Announced, now) {
            warn!(id = before.id, "not resumed: {error:#}");
            self.runs[index] = before;
            return;
        }
        let state = match was_watched {
            true => RunState::Confirmed,
            false => RunState::Applied,
        };
        self.write_or_end(index, state, now);
    }
}
