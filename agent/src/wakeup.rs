//! Asking for a reading before its time.

use std::sync::Arc;

use tokio::sync::Notify;

/// Wakes the monitor for the next tick. Its clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct WakeUp(Arc<Notify>);

impl WakeUp {
    /// Asks for a reading now. Any number of calls before the next reading count as one.
    pub fn request(&self) {
        self.0.notify_one();
    }

    /// Waits until a reading is asked for, or has been since the last time.
    pub async fn requested(&self) {
        self.0.notified().await;
    }
}
