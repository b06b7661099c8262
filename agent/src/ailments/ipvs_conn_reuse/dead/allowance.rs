//! So many a second, and not more at one time.

use std::time::Instant;

/// What may still be done.
#[derive(Debug)]
pub(super) struct Allowance {
    a_second: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(a_second: u32, now: Instant) -> Self {
        let a_second = f64::from(a_second);
        Self {
            a_second,
            left: a_second,
            at: now,
        }
    }

    /// Whether one more may be done, which then counts as done.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let gained = (now - self.at).as_secs_f64() * self.a_second;
        self.at = now;
        self.left = (self.left + gained).min(self.a_second);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_than_allowed_are_done_at_once_and_in_the_long_run() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(10, begin);
        let mut done = |now| (0..100).filter(|_| allowance.take(now)).count();
        assert_eq!(done(begin), 10);
        assert_eq!(done(begin), 0);
        assert_eq!(done(begin + Duration::from_millis(500)), 5);
        assert_eq!(done(begin + Duration::from_secs(60)), 10);
    }
}
