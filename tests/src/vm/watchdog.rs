//! When a guest counts as hung. That is told by the CPU time that QEMU has used, so that a busy host
//! makes a run longer and none of its tests fail.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::machine::Clock;
use crate::usage;

/// Instructions that QEMU emulates in a second of CPU time, at the least: half of what was seen in the
/// dearest scenarios.
const SLOWEST: u64 = 60_000_000;

/// A guest that hangs without using the CPU has nothing that could wake it.
const STILL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Watchdog {
    qemu: u32,
    clock: Clock,
    /// For QEMU's CPU time since [`Watchdog::grant`].
    allowance: Duration,
    granted_at: Duration,
    /// When QEMU's CPU time was seen to grow, and what it was.
    grew: (Instant, Duration),
}

impl Watchdog {
    pub(super) fn new(qemu: u32, clock: Clock) -> Self {
        Self {
            qemu,
            clock,
            allowance: Duration::MAX,
            granted_at: Duration::ZERO,
            grew: (Instant::now(), Duration::ZERO),
        }
    }

    /// From now on the guest has this long, in its own time.
    pub(super) fn grant(&mut self, guest_time: Duration) {
        self.allowance = guest_time.saturating_mul(cost(self.clock));
        self.granted_at = self.grew.1;
    }

    /// Why the guest is to be given up, if it is. A QEMU that has ended is not looked at.
    pub(super) fn look(&mut self) -> Result<Option<String>> {
        Ok(self.judge(usage::cpu(self.qemu)?, Instant::now()))
    }

    fn judge(&mut self, cpu: Duration, now: Instant) -> Option<String> {
        let (since, before) = self.grew;
        if cpu > before {
            self.grew = (now, cpu);
        } else if now.duration_since(since) > STILL {
            return Some(format!("it stood still for {STILL:?}"));
        }
        let used = cpu.saturating_sub(self.granted_at);
        let allowance = self.allowance;
        (used > allowance)
            .then(|| format!("no sign of life within {allowance:?} of QEMU's CPU time"))
    }
}

/// CPU seconds that a second of the guest may cost, rounded up.
fn cost(clock: Clock) -> u32 {
    match clock {
        Clock::Host => 4,
        Clock::Paced(shift) | Clock::Virtual(shift) => {
            let instructions = 1_000_000_000_u64 >> shift.0;
            u32::try_from(instructions.div_ceil(SLOWEST)).unwrap_or(u32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::machine::Shift;

    const SECOND: Duration = Duration::from_secs(1);

    fn watchdog() -> Watchdog {
        Watchdog::new(0, Clock::Virtual(Shift::USUAL))
    }

    #[test]
    fn a_busy_host_makes_nobody_hang() {
        let mut watchdog = watchdog();
        watchdog.grant(10 * SECOND);
        let begun = Instant::now();
        for step in 1..=40 {
            // A second of CPU time in each half minute.
            let verdict = watchdog.judge(step * SECOND, begun + 30 * step * SECOND);
            assert_eq!(verdict, None, "{step}");
        }
    }

    #[test]
    fn one_that_computes_for_ever_hangs() {
        let mut watchdog = watchdog();
        watchdog.grant(10 * SECOND);
        let now = Instant::now();
        assert_eq!(watchdog.judge(49 * SECOND, now), None);
        assert!(watchdog.judge(51 * SECOND, now).is_some());
        watchdog.grant(10 * SECOND);
        assert_eq!(watchdog.judge(100 * SECOND, now), None);
    }

    #[test]
    fn one_that_waits_for_ever_hangs() {
        let mut watchdog = watchdog();
        let now = Instant::now();
        assert_eq!(watchdog.judge(SECOND, now), None);
        assert_eq!(watchdog.judge(SECOND, now + STILL), None);
        assert!(watchdog.judge(SECOND, now + STILL + SECOND).is_some());
    }

    #[test]
    fn an_instruction_that_takes_longer_makes_a_second_cheaper() {
        assert_eq!(cost(Clock::Virtual(Shift::FAST)), 17);
        assert_eq!(cost(Clock::Virtual(Shift::USUAL)), 5);
    }
}
