//! The clocks: of the reports, of the BPF programs, and of what has a time limit.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// Seconds since the epoch; 0 for a clock that stands before it.
pub fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// The clock of `bpf_ktime_get_ns`, `CLOCK_MONOTONIC`.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// `CLOCK_BOOTTIME`: nobody can set it, and it goes on while the machine sleeps.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
