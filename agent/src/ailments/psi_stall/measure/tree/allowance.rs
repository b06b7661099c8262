//! What scans of the tree may take: a share of one core in any minute, however often readings are
//! taken.

use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// CPU time for scans, earned with time and spent by scans. Half of a minute's share is what can
/// be saved, and the other half is earned in a minute: together at most the share in any minute.
#[derive(Debug)]
pub(super) struct Allowance {
    /// CPU time earned in a second, seconds.
    rate: f64,
    /// Seconds; below zero after a scan that took longer than it might.
    saved: f64,
    /// What can be saved, seconds.
    most: f64,
}

impl Allowance {
    /// With all that can be saved.
    pub(super) fn new(share: f64) -> Self {
        let rate = share / 2.0;
        let most = rate * MINUTE.as_secs_f64();
        Self {
            rate,
            saved: most,
            most,
        }
    }

    /// Time has passed.
    pub(super) fn earn(&mut self, time: Duration) {
        self.saved = (self.saved + self.rate * time.as_secs_f64()).min(self.most);
    }

    /// A scan took so much CPU time.
    pub(super) fn spend(&mut self, time: Duration) {
        self.saved -= time.as_secs_f64();
    }

    /// What a part of a scan may take.
    pub(super) fn available(&self, to: Purpose) -> Duration {
        let kept = match to {
            Purpose::Follow => 0.0,
            Purpose::Hunt => 0.25,
            Purpose::Sweep => 0.5,
        };
        Duration::try_from_secs_f64(self.saved - kept * self.most).unwrap_or_default()
    }
}

/// What a scan takes CPU time for. What matters more has savings that the others leave to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// To read those again that readings have named.
    Follow,
    /// To find who stalls, while somebody does: then the whole tree matters at once.
    Hunt,
    /// To keep up with the rest.
    Sweep,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARE: f64 = 0.005;
    const ALL: [Purpose; 3] = [Purpose::Follow, Purpose::Hunt, Purpose::Sweep];

    proptest! {
        /// Whatever the interval between readings, and whatever each wants.
        #[test]
        fn scans_take_at_most_their_share_of_any_minute(
            ticks in proptest::collection::vec((1_u64..20_000, 0_u64..500, 0_usize..3), 1..200)
        ) {
            let mut allowance = Allowance::new(SHARE);
            let mut now = Duration::ZERO;
            let mut spent: Vec<(Duration, Duration)> = Vec::new();
            for (interval, wanted, to) in ticks {
                let interval = Duration::from_millis(interval);
                now += interval;
                allowance.earn(interval);
                let took = allowance.available(ALL[to]).min(Duration::from_millis(wanted));
                allowance.spend(took);
                spent.push((now, took));
                let last_minute = spent.iter().filter(|(at, _)| *at + MINUTE > now);
                let sum: Duration = last_minute.map(|(_, took)| *took).sum();
                prop_assert!(sum <= MINUTE.mul_f64(SHARE + 1e-9), "{sum:?} up to {now:?}");
            }
        }
    }

    #[test]
    fn savings_are_kept_for_what_matters_more_and_a_debt_is_paid_first() {
        let mut allowance = Allowance::new(SHARE);
        let ms = |allowance: &Allowance| ALL.map(|to| allowance.available(to).as_millis());
        assert_eq!(ms(&allowance), [150, 112, 75]);
        allowance.spend(Duration::from_millis(75));
        assert_eq!(ms(&allowance), [75, 37, 0]);
        allowance.spend(Duration::from_millis(100));
        assert_eq!(ms(&allowance), [0, 0, 0]);
        allowance.earn(Duration::from_secs(10));
        assert_eq!(ms(&allowance), [0, 0, 0], "25 ms are owed");
        allowance.earn(Duration::from_secs(10));
        assert_eq!(ms(&allowance), [25, 0, 0]);
        allowance.earn(100 * MINUTE);
        assert_eq!(ms(&allowance), [150, 112, 75]);
    }
}
