//! What an earlier agent has left.

use tracing::info;

use super::{Engine, Now, target};
use crate::{
    kernel::sysctl,
    model::{Change, Ending, Run, RunState, Treatment},
};

impl Engine {
    /// What an earlier agent has left.
    pub(super) fn recover(&mut self, now: Now) {
        for index in self.active() {
            let run = &self.runs[index];
            if run.boot != self.boot {
                let why = "the machine has booted since";
                self.close(index, RunState::Rebooted, Ending::Reboot, why, now);
            } else if run.state == RunState::Intended {
                let why = "the agent was killed while it wrote";
                self.end(index, RunState::Undone, Ending::Interrupted, why, now);
            } else if run.ends <= now.boot_seconds {
                self.end(
                    index,
                    RunState::Undone,
                    Ending::Expired,
                    "its time is over",
                    now,
                );
            } else if self.is_set_back(run) {
                let why = "its values were restored while no agent ran";
                self.end(index, RunState::Undone, Ending::Interrupted, why, now);
            } else {
                info!(id = run.id, treatment = run.treatment, "goes on");
                self.expect_ended(index);
            }
        }
    }

    /// Whether all values that are there are those of before: somebody has restored them, perhaps
    /// the earlier agent, which could not record it. What that agent did itself is so in any case.
    fn is_set_back(&self, run: &Run) -> bool {
        let mut values = run.changes.iter().map(|change| {
            let is_switch = self.writer.ends_with_agent(&change.key);
            match self.writer.read(target(change)) {
                Ok(Some(value)) if !is_switch => Some(value == change.from),
                Ok(None) if !is_switch => None,
                // Not known to be so.
                Ok(_) | Err(_) => Some(false),
            }
        });
        let mut is_any_there = false;
        let is_all = values.all(|is_back| {
            is_any_there |= is_back.is_some();
            is_back != Some(false)
        });
        is_all && is_any_there
    }

    /// What the earlier agent did itself has ended with it. Nobody has set that back, so
    /// it begins again without being counted as such.
    fn expect_ended(&mut self, index: usize) {
        for change in &mut self.runs[index].changes {
            change.absent |= self.writer.ends_with_agent(&change.key);
        }
    }
}

/// Whether this agent may write what an active run of a journal says: the treatment is one of its
/// own, and allows each key and value. Else why not.
pub(in crate::treatment) fn permitted(
    treatments: &[(&'static str, &'static Treatment)],
    run: &Run,
    boot: &str,
) -> Result<(), String> {
    if !run.is_active() || run.boot != boot {
        return Ok(());
    }
    let mut known = treatments.iter().filter(|(it, _)| *it == run.ailment);
    let Some((_, treatment)) = known.find(|(_, it)| it.name == run.treatment) else {
        return Err(format!(
            "this nodemedic has no treatment {:?} against {:?}",
            run.treatment, run.ailment
        ));
    };
    let mut changes = run.changes.iter();
    let is_allowed = |change: &&Change| {
        sysctl::is_plain(&change.key) && treatment.allows(std::slice::from_ref(*change))
    };
    match changes.find(|change| !is_allowed(change)) {
        Some(change) => Err(format!(
            "treatment {:?} never sets {:?} to {}",
            run.treatment, change.key, change.to
        )),
        None => Ok(()),
    }
}
