//! Where those who run VMs leave outcomes, and the tests wait for theirs.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::protocol::Outcome;

/// Kernel and scenario.
type Key = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Board {
    outcomes: Mutex<HashMap<Key, Outcome>>,
    changed: Condvar,
}

impl Board {
    pub(crate) fn publish(&self, kernel: &str, scenario: &str, outcome: Outcome) {
        // A panic of another thread cannot leave a map half changed.
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert((kernel.to_owned(), scenario.to_owned()), outcome);
        self.changed.notify_all();
    }

    /// For what has no outcome yet, and will get none.
    pub(crate) fn publish_if_open(&self, kernel: &str, scenario: &str, outcome: Outcome) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes
            .entry((kernel.to_owned(), scenario.to_owned()))
            .or_insert(outcome);
        self.changed.notify_all();
    }

    /// Waits until there is one.
    pub(crate) fn outcome(&self, kernel: &str, scenario: &str) -> Outcome {
        let key = (kernel.to_owned(), scenario.to_owned());
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = outcomes.get(&key) {
                return outcome.clone();
            }
            outcomes = self
                .changed
                .wait(outcomes)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
