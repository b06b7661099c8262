//! Wall clock time as the reports carry it.

use std::time::SystemTime;

/// Seconds since the epoch; 0 for a clock that stands before it.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
