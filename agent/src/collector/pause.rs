//! How long to leave something alone that did not work.

/// Ticks that pass before the next try: 1, 2, 4 … up to [`Pause::LONGEST`].
///
/// Counted in ticks rather than in seconds, so it needs no clock.
#[derive(Debug)]
pub(super) struct Pause {
    left: u32,
    next: u32,
}

impl Pause {
    /// Collecting facts and loading programs takes a good part of a second, so at
    /// the usual interval of 5 s one in 64 keeps the agent below its CPU budget.
    const LONGEST: u32 = 64;

    /// For what will be told when it is worth a try.
    pub(super) fn longest() -> Self {
        Self {
            left: Self::LONGEST,
            next: Self::LONGEST,
        }
    }

    /// Whether the time has come; called once a tick.
    pub(super) fn is_over(&mut self) -> bool {
        let over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        over
    }

    /// It did not work, again.
    pub(super) fn lengthen(&mut self) {
        self.left = self.next;
        self.next = (self.next * 2).min(Self::LONGEST);
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self { left: 0, next: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pause = Pause::default();
        let mut lengths = Vec::new();
        for _ in 0..9 {
            pause.lengthen();
            let mut length = 0;
            while !pause.is_over() {
                length += 1;
            }
            lengths.push(length);
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }
}
