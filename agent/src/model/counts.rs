//! How often treatments were begun, ended and refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts since the agent began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreatmentCounts {
    /// Steps of runs.
    pub outcomes: Vec<Outcome>,
    /// Values that somebody had set back, by treatment.
    pub drifts: BTreeMap<String, u64>,
    /// What was not done, by reason.
    pub refusals: BTreeMap<String, u64>,
}

/// How often a treatment that was asked for in one way came to one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The treatment.
    pub treatment: String,
    /// Who asked for it.
    pub trigger: String,
    /// The state; `ineffective` or `harmful` where that is why it was undone; or `dry-run`.
    pub outcome: String,
    /// How often.
    pub times: u64,
}

impl TreatmentCounts {
    pub fn outcome(&mut self, treatment: &str, trigger: &str, outcome: &str) {
        let same = |it: &&mut Outcome| {
            it.treatment == treatment && it.trigger == trigger && it.outcome == outcome
        };
        match self.outcomes.iter_mut().find(same) {
            Some(known) => known.times += 1,
            None => self.outcomes.push(Outcome {
                treatment: treatment.to_owned(),
                trigger: trigger.to_owned(),
                outcome: outcome.to_owned(),
                times: 1,
            }),
        }
    }

    pub fn drift(&mut self, treatment: &str) {
        *self.drifts.entry(treatment.to_owned()).or_default() += 1;
    }

    pub fn refusal(&mut self, reason: &str) {
        *self.refusals.entry(reason.to_owned()).or_default() += 1;
    }
}
