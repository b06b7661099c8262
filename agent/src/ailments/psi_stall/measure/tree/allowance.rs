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

    /// What a scan may take. Half of the savings are for when tasks wait too long: then the whole
    /// tree matters at once.
    pub(super) fn available(&self, urgent: bool) -> Duration {
        let kept = if urgent { 0.0 } else { self.most / 2.0 };
        Duration::try_from_secs_f64(self.saved - kept).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARE: f64 = 0.005;

    proptest! {
        /// Whatever the interval between readings, and whatever each wants.
        #[test]
        fn scans_take_at_most_their_share_of_any_minute(
            ticks in proptest::collection::vec((1_u64..20_000, 0_u64..500, any::<bool>()), 1..200)
        ) {
            let mut allowance = Allowance::new(SHARE);
            let mut now = Duration::ZERO;
            let mut spent: Vec<(Duration, Duration)> = Vec::new();
            for (interval, wanted, urgent) in ticks {
                let interval = Duration::from_millis(interval);
                now += interval;
                allowance.earn(interval);
                let took = allowance.available(urgent).min(Duration::from_millis(wanted));
                allowance.spend(took);
                spent.push((now, took));
                let last_minute = spent.iter().filter(|(at, _)| *at + MINUTE > now);
                let sum: Duration = last_minute.map(|(_, took)| *took).sum();
                prop_assert!(sum <= MINUTE.mul_f64(SHARE + 1e-9), "{sum:?} up to {now:?}");
            }
        }
    }

    #[test]
    fn half_is_kept_for_when_tasks_wait_and_a_debt_is_paid_first() {
        let mut allowance = Allowance::new(SHARE);
        let ms = |allowance: &Allowance, urgent| allowance.available(urgent).as_millis();
        assert_eq!((ms(&allowance, false), ms(&allowance, true)), (75, 150));
        allowance.spend(Duration::from_millis(75));
        assert_eq!((ms(&allowance, false), ms(&allowance, true)), (0, 75));
        allowance.spend(Duration::from_millis(100));
        assert_eq!(ms(&allowance, true), 0);
        allowance.earn(Duration::from_secs(10));
        assert_eq!(ms(&allowance, true), 0, "25 ms are owed");
        allowance.earn(Duration::from_secs(10));
        assert_eq!(ms(&allowance, true), 25);
        allowance.earn(100 * MINUTE);
        assert_eq!(ms(&allowance, true), 150);
    }
}
