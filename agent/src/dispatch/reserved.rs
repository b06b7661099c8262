//! Nodes that were sent an alert that fires, and have not answered to it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// An agent that has not answered counts as treating for as long. It closes a connection after less
/// (`http::Limits`), and what it decides on is in its report.
const UNANSWERED_FOR: Duration = Duration::from_secs(60);

/// The nodes, and when the alert was sent.
#[derive(Debug, Default)]
pub(super) struct Reserved(Mutex<HashMap<String, Instant>>);

impl Reserved {
    /// Called before an alert is sent.
    pub(super) fn sent(&self, node: &str) {
        let mut nodes = self.nodes();
        nodes.retain(|_, sent| sent.elapsed() < UNANSWERED_FOR);
        nodes.insert(node.to_owned(), Instant::now());
    }

    /// Called when an answer was read, whatever it is.
    pub(super) fn answered(&self, node: &str) {
        self.nodes().remove(node);
    }

    /// Whether a node may be treating though its report does not say so.
    pub(super) fn contains(&self, node: &str) -> bool {
        let nodes = self.nodes();
        nodes
            .get(node)
            .is_some_and(|sent| sent.elapsed() < UNANSWERED_FOR)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
