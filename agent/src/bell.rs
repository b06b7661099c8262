//! A bell: whoever sees that a reading is wanted before its time rings it.
//!
//! There is one for the process, as there is one tick.

use tokio::sync::Notify;

static BELL: Notify = Notify::const_new();

/// Asks for a reading now. Any number of times before the next is as good as once.
pub fn ring() {
    BELL.notify_one();
}

/// Waits until somebody rings, or has rung since the last time.
pub async fn rung() {
    BELL.notified().await;
}
