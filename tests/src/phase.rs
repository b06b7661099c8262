//! Which part of a scenario keeps the guest's CPUs busy. In virtual time that is what a scenario costs:
//! idle time is skipped.

use std::cell::Cell;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// A part that [`during`] measures. The rest is the fault, and the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An agent starts, until it is ready; or a verb of it runs.
    Agent,
    /// The scenario waits for something to come true.
    Waiting,
}

/// CPU time of all the guest's CPUs, by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Busy {
    pub(crate) agent: Duration,
    pub(crate) waiting: Duration,
    pub(crate) rest: Duration,
}

static MEASURED: Mutex<Busy> = Mutex::new(Busy {
    agent: Duration::ZERO,
    waiting: Duration::ZERO,
    rest: Duration::ZERO,
});

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Counts what the guest does meanwhile as this phase; inside of another phase, as that one.
pub fn during<T>(phase: Phase, f: impl FnOnce() -> T) -> T {
    if INSIDE.replace(true) {
        return f();
    }
    let before = busy();
    let value = f();
    let took = busy().saturating_sub(before);
    INSIDE.set(false);
    let mut measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    match phase {
        Phase::Agent => measured.agent += took,
        Phase::Waiting => measured.waiting += took,
    }
    value
}

/// What a process has measured since the guest had been busy for so long.
pub(crate) fn since(begin: Duration) -> Busy {
    let measured = *MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = busy().saturating_sub(begin);
    Busy {
        rest: whole
            .saturating_sub(measured.agent)
            .saturating_sub(measured.waiting),
        ..measured
    }
}

/// How long the CPUs have been busy since the boot. Zero where that cannot be read: it is for a
/// summary, and nothing depends on it.
pub(crate) fn busy() -> Duration {
    let ticks_a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    Duration::from_secs_f64(busy_ticks(&text) as f64 / ticks_a_second as f64)
}

/// Of the first line: user, nice, system, then idle and iowait, which do not count, irq, softirq,
/// steal (`show_stat()`, fs/proc/stat.c).
fn busy_ticks(stat: &str) -> u64 {
    let numbers = stat.lines().next().unwrap_or_default().split_whitespace();
    let numbers = numbers.skip(1).map(|number| number.parse().unwrap_or(0));
    let counted = numbers.take(8).enumerate();
    let counted = counted.filter(|(index, _)| !matches!(index, 3 | 4));
    counted.map(|(_, ticks): (usize, u64)| ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ticks_are_not_busy() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy_ticks(stat), 1 + 2 + 4 + 8 + 16 + 32);
        assert_eq!(busy_ticks(""), 0);
    }

    #[test]
    fn an_inner_phase_is_part_of_the_outer() {
        assert_eq!(during(Phase::Agent, || during(Phase::Waiting, || 1) + 1), 2);
        assert!(!INSIDE.get());
    }
}
