//! Where those who run VMs leave outcomes, and the tests wait for theirs.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::costs::Costs;
use crate::protocol::Outcome;

/// Kernel and scenario.
pub(crate) type Key = (String, String);

#[derive(Debug)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
    pub(crate) costs: Costs,
}

#[derive(Debug, Default)]
struct State {
    outcomes: HashMap<Key, Outcome>,
    open: HashSet<Key>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            costs: Costs::new(),
        }
    }

    /// All that will have an outcome.
    pub(crate) fn expect(&self, keys: impl Iterator<Item = Key>) {
        self.lock().open.extend(keys);
    }

    /// The first outcome counts. Before the last that is expected come what the run has cost: behind it
    /// nothing is printed but the results.
    pub(crate) fn publish(&self, kernel: &str, scenario: &str, outcome: Outcome) {
        let key = (kernel.to_owned(), scenario.to_owned());
        let mut state = self.lock();
        if state.outcomes.contains_key(&key) {
            return;
        }
        if state.open.remove(&key) && state.open.is_empty() {
            eprint!("{}", self.costs.summary());
        }
        state.outcomes.insert(key, outcome);
        self.changed.notify_all();
    }

    /// Waits until there is one.
    pub(crate) fn outcome(&self, kernel: &str, scenario: &str) -> Outcome {
        let key = (kernel.to_owned(), scenario.to_owned());
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcomes.get(&key) {
                return outcome.clone();
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread cannot leave a map half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_counts() {
        let board = Board::new();
        board.publish("6.1", "one", Outcome::Passed);
        board.publish("6.1", "one", Outcome::Failed("later".into()));
        assert_eq!(board.outcome("6.1", "one"), Outcome::Passed);
    }
}
