//! The slow intervals of the last seconds, out of the rings that the programs write.

use std::collections::VecDeque;

use ebpf::ipvs_estimation::{REMEMBERED, Ring};
use serde::{Deserialize, Serialize};

/// How long a pass counts as recent. They come every two seconds, so that a tick of
/// one second sees none every other time, and the verdict must not flap.
pub(super) const PASSES_SECONDS: f64 = 10.0;

/// How long a wait does: not every pass finds somebody who waits.
pub(super) const WAITS_SECONDS: f64 = 60.0;

/// Kept at the most, of each kind.
const KEPT: usize = 256;

/// A time that something took on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The CPU.
    pub cpu: u32,
    /// When it began, seconds since the epoch.
    pub began_unix_seconds: f64,
    /// How long it took, seconds.
    pub seconds: f64,
}

/// One kind of interval.
#[derive(Debug)]
pub(super) struct Intervals {
    /// How long one counts as recent, seconds.
    lasts: f64,
    /// What each CPU had written at the last reading.
    written: Vec<u64>,
    kept: VecDeque<Interval>,
}

/// The two clocks at one time, to tell what the programs' clock means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// `CLOCK_MONOTONIC`, seconds.
    pub(super) monotonic: f64,
    /// Since the epoch, seconds.
    pub(super) unix: f64,
}

impl Clock {
    pub(super) fn interval(
        self,
        cpu: usize,
        interval: &ebpf::ipvs_estimation::Interval,
    ) -> Interval {
        let ago = self.monotonic - interval.began_ns as f64 / 1e9;
        Interval {
            cpu: cpu as u32,
            began_unix_seconds: self.unix - ago,
            seconds: interval.ns as f64 / 1e9,
        }
    }
}

impl Intervals {
    pub(super) fn lasting(seconds: f64) -> Self {
        Self {
            lasts: seconds,
            written: Vec::new(),
            kept: VecDeque::new(),
        }
    }

    /// Takes over what is new in the rings of all CPUs, and forgets what is old.
    pub(super) fn update<'r>(
        &mut self,
        clock: Clock,
        rings: impl Iterator<Item = &'r Ring>,
    ) -> Vec<Interval> {
        for (cpu, ring) in rings.enumerate() {
            if self.written.len() <= cpu {
                self.written.push(0);
            }
            let new = ring.written.saturating_sub(self.written[cpu]);
            self.written[cpu] = ring.written;
            let new = new.min(REMEMBERED as u64);
            for number in ring.written - new..ring.written {
                let interval = &ring.intervals[number as usize % REMEMBERED];
                self.kept.push_back(clock.interval(cpu, interval));
            }
        }
        let oldest = clock.unix - self.lasts;
        self.kept
            .retain(|it| it.began_unix_seconds + it.seconds >= oldest);
        let too_many = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..too_many);
        self.kept.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use ebpf::ipvs_estimation::Interval as Raw;

    use super::*;

    const NOTHING: Raw = Raw { began_ns: 0, ns: 0 };

    fn ring(intervals: &[(u64, u64)]) -> Ring {
        let mut ring = Ring {
            written: 0,
            intervals: [NOTHING; REMEMBERED],
        };
        for (began, ms) in intervals {
            ring.intervals[ring.written as usize % REMEMBERED] = Raw {
                began_ns: began * 1_000_000_000,
                ns: ms * 1_000_000,
            };
            ring.written += 1;
        }
        ring
    }

    fn at(monotonic: f64) -> Clock {
        Clock {
            monotonic,
            unix: monotonic + 1_000.0,
        }
    }

    #[test]
    fn each_is_taken_once_with_its_cpu_and_time_and_forgotten_when_old() {
        let mut intervals = Intervals::lasting(10.0);
        let rings = [ring(&[]), ring(&[(5, 200)])];
        let wanted = Interval {
            cpu: 1,
            began_unix_seconds: 1_005.0,
            seconds: 0.2,
        };
        assert_eq!(intervals.update(at(6.0), rings.iter()), [wanted]);
        assert_eq!(intervals.update(at(14.0), rings.iter()), [wanted]);
        assert_eq!(intervals.update(at(15.5), rings.iter()), []);
    }

    #[test]
    fn of_a_ring_that_went_round_the_last_are_left() {
        let many: Vec<_> = (0..REMEMBERED as u64 + 3).map(|at| (at, 1)).collect();
        let rings = [ring(&many)];
        let mut intervals = Intervals::lasting(10.0);
        let kept = intervals.update(at(12.0), rings.iter());
        assert_eq!(kept.len(), REMEMBERED);
        assert_eq!(kept[0].began_unix_seconds, 1_003.0);
    }
}
