//! When the probe `answers` is attached: it runs for each UDP datagram through IPVS, so it has
//! turns, for as long as flows to drained destinations are in use.

use std::time::{Duration, Instant};

/// How long a turn lasts at least; it ends with the next tick.
const TURN: Duration = Duration::from_secs(15);

/// From the end of one turn to the next.
const PAUSE: Duration = Duration::from_secs(45);

/// When the probe of answers is attached.
#[derive(Debug)]
pub(in super::super) struct Turns {
    began: Option<Instant>,
    next: Option<Instant>,
}

impl Turns {
    pub(in super::super) fn new() -> Self {
        Self {
            began: None,
            next: None,
        }
    }

    /// Whether the probe is to be attached from now on.
    pub(in super::super) fn decide(&mut self, is_wanted: bool, now: Instant) -> bool {
        let is_over = |began: Instant| !is_wanted || now.duration_since(began) >= TURN;
        match self.began {
            Some(began) if is_over(began) => {
                self.began = None;
                self.next = Some(now + PAUSE);
            }
            None if is_wanted && self.next.is_none_or(|next| now >= next) => {
                self.began = Some(now);
            }
            Some(_) | None => {}
        }
        self.began.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_take_a_part_of_the_time_and_end_when_nobody_wants_them() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut turns = Turns::new();
        assert!(!turns.decide(false, at(0)));
        let traced = (0..120).filter(|second| turns.decide(true, at(*second)));
        assert_eq!(traced.count(), 30, "15 s of each 60 s");
        assert!(turns.decide(true, at(120)));
        assert!(!turns.decide(false, at(121)));
        assert!(!turns.decide(true, at(122)));
    }
}
