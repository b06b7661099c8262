//! How many requests there may be.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A minute's worth at once, then as many a minute.
#[derive(Debug)]
pub(super) struct Rate {
    per_minute: f64,
    left: Mutex<(f64, Instant)>,
}

impl Rate {
    pub(super) fn new(per_minute: u32, now: Instant) -> Self {
        let per_minute = f64::from(per_minute);
        Self {
            per_minute,
            left: Mutex::new((per_minute, now)),
        }
    }

    /// Takes one; or how long until there is one.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, since) = *left;
        let come = now.saturating_duration_since(since).as_secs_f64() * self.per_minute / 60.0;
        let there = (before + come).min(self.per_minute);
        if there < 1.0 {
            *left = (there, now);
            return Err(Duration::from_secs_f64(
                (1.0 - there) * 60.0 / self.per_minute,
            ));
        }
        *left = (there - 1.0, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_a_minute_and_no_more() {
        let start = Instant::now();
        let rate = Rate::new(2, start);
        assert_eq!(rate.take(start), Ok(()));
        assert_eq!(rate.take(start), Ok(()));
        assert_eq!(rate.take(start), Err(Duration::from_secs(30)));
        let later = start + Duration::from_secs(31);
        assert_eq!(rate.take(later), Ok(()));
        assert!(rate.take(later).is_err());
        let much_later = start + Duration::from_secs(3_600);
        assert_eq!(rate.take(much_later), Ok(()));
        assert_eq!(rate.take(much_later), Ok(()));
        assert!(rate.take(much_later).is_err());
    }
}
