//! Whom events are ascribed to. A map of the kernel forgets the least used keys when
//! it is full; what is kept here never goes back, so that counters only rise.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// A key without events for this long gives up its place in the metrics when another
/// wants it.
const IDLE: Duration = Duration::from_secs(600);

/// Keys of the window that a report names.
const TOP: usize = 20;

/// Events of `N` kinds, by key.
#[derive(Debug)]
pub(super) struct Ranking<K, const N: usize> {
    /// Counts of the kernel's map at the last tick.
    seen: HashMap<K, [u64; N]>,
    places: Ranks<K, N>,
    attributed: [u64; N],
    forgotten: [u64; N],
}

/// The keys that metrics show, and the events of all others.
#[derive(Debug)]
pub(super) struct Ranks<K, const N: usize> {
    shown: HashMap<K, Shown<N>>,
    places: usize,
    other: [u64; N],
}

#[derive(Debug)]
struct Shown<const N: usize> {
    events: [u64; N],
    active: Instant,
}

impl<K: Copy + Eq + Hash + Ord, const N: usize> Ranking<K, N> {
    /// Metrics show so many keys.
    pub(super) fn new(places: usize) -> Self {
        Self {
            seen: HashMap::new(),
            places: Ranks::new(places),
            attributed: [0; N],
            forgotten: [0; N],
        }
    }

    /// Takes in the kernel's map as it is now, and returns the keys with most events
    /// since the last time.
    pub(super) fn update(
        &mut self,
        now: Instant,
        map: impl Iterator<Item = (K, [u64; N])>,
    ) -> Vec<(K, [u64; N])> {
        let seen: HashMap<_, _> = map.collect();
        let mut new: Vec<_> = seen
            .iter()
            .map(|(key, events)| (*key, since(*events, self.seen.get(key))))
            .filter(|(_, new)| sum(new) > 0)
            .collect();
        self.seen = seen;
        new.sort_by(|(a, m), (b, n)| sum(n).cmp(&sum(m)).then_with(|| a.cmp(b)));
        for (key, new) in &new {
            add(&mut self.attributed, *new);
            self.places.count(now, *key, *new);
        }
        new.truncate(TOP);
        new
    }

    /// The keys that metrics show, with their events since they are shown.
    pub(super) fn shown(&self) -> Vec<(K, [u64; N])> {
        self.places.shown()
    }

    /// Events under no key that was ever shown, out of all that there were: those of
    /// keys without a place, and those that the kernel's map forgot before they were
    /// read. They never fall, however the two were read.
    pub(super) fn other(&mut self, all: [u64; N]) -> [u64; N] {
        let mut other = self.places.other();
        for (kind, other) in other.iter_mut().enumerate() {
            let missing = all[kind].saturating_sub(self.attributed[kind]);
            self.forgotten[kind] = self.forgotten[kind].max(missing);
            *other += self.forgotten[kind];
        }
        other
    }
}

impl<K: Clone + Eq + Hash + Ord, const N: usize> Ranks<K, N> {
    /// Metrics show so many keys.
    pub(super) fn new(places: usize) -> Self {
        Self {
            shown: HashMap::new(),
            places,
            other: [0; N],
        }
    }

    /// Adds events to a key, or to the others where there is no place for it.
    pub(super) fn count(&mut self, now: Instant, key: K, new: [u64; N]) {
        if self.shown.contains_key(&key) || self.find_place(now) {
            let shown = self.shown.entry(key).or_insert(Shown {
                events: [0; N],
                active: now,
            });
            add(&mut shown.events, new);
            shown.active = now;
        } else {
            add(&mut self.other, new);
        }
    }

    /// Adds events to a key that has a place already, else to the others.
    pub(super) fn count_aside(&mut self, key: &K, new: [u64; N]) {
        let counter = match self.shown.get_mut(key) {
            Some(shown) => &mut shown.events,
            None => &mut self.other,
        };
        add(counter, new);
    }

    /// Events of keys without a place.
    pub(super) fn other(&self) -> [u64; N] {
        self.other
    }

    /// Whether one more key can be shown, making room for it if need be.
    fn find_place(&mut self, now: Instant) -> bool {
        if self.shown.len() < self.places {
            return true;
        }
        let idlest = self.shown.iter().min_by_key(|(_, shown)| shown.active);
        let Some((idlest, _)) = idlest.filter(|(_, shown)| now - shown.active >= IDLE) else {
            return false;
        };
        let idlest = idlest.clone();
        self.shown.remove(&idlest);
        true
    }

    /// The keys that metrics show, with their events since they are shown.
    pub(super) fn shown(&self) -> Vec<(K, [u64; N])> {
        let mut shown: Vec<_> = self
            .shown
            .iter()
            .map(|(key, shown)| (key.clone(), shown.events))
            .collect();
        shown.sort_unstable();
        shown
    }
}

/// Events since the last tick. Fewer than then: the map had forgotten the key in
/// between, and it began anew.
fn since<const N: usize>(now: [u64; N], before: Option<&[u64; N]>) -> [u64; N] {
    let before = before.copied().unwrap_or([0; N]);
    if now.iter().zip(&before).any(|(now, before)| now < before) {
        return now;
    }
    std::array::from_fn(|kind| now[kind] - before[kind])
}

fn add<const N: usize>(sums: &mut [u64; N], more: [u64; N]) {
    sums.iter_mut()
        .zip(more)
        .for_each(|(sum, more)| *sum += more);
}

fn sum(events: &[u64]) -> u64 {
    events.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(places: usize) -> (Ranking<u8, 1>, Instant) {
        (Ranking::new(places), Instant::now())
    }

    #[test]
    fn counts_are_differences_and_the_most_active_come_first() {
        let (mut keys, now) = ranking(10);
        keys.update(now, [(1, [5])].into_iter());
        let top = keys.update(now, [(1, [7]), (2, [3])].into_iter());
        assert_eq!(top, [(2, [3]), (1, [2])]);
        assert_eq!(keys.shown(), [(1, [7]), (2, [3])]);
    }

    #[test]
    fn kinds_are_counted_apart_and_ranked_together() {
        let mut keys = Ranking::<u8, 2>::new(1);
        let top = keys.update(Instant::now(), [(1, [5, 0]), (2, [3, 3])].into_iter());
        assert_eq!(top, [(2, [3, 3]), (1, [5, 0])]);
        assert_eq!(keys.other([8, 4]), [5, 1]);
    }

    #[test]
    fn a_key_that_the_map_forgot_counts_on_from_where_it_was() {
        let (mut keys, now) = ranking(10);
        keys.update(now, [(1, [5])].into_iter());
        keys.update(now, [(1, [2])].into_iter());
        assert_eq!(keys.shown(), [(1, [7])]);
    }

    #[test]
    fn what_has_no_place_is_other_and_all_add_up() {
        let (mut keys, now) = ranking(1);
        keys.update(now, [(1, [5]), (2, [3])].into_iter());
        // Two more were of keys that the map forgot before this tick.
        assert_eq!(keys.shown(), [(1, [5])]);
        assert_eq!(keys.other([10]), [5]);
    }

    #[test]
    fn an_idle_key_gives_its_place_up_and_an_active_one_does_not() {
        let (mut keys, begin) = ranking(1);
        keys.update(begin, [(1, [5])].into_iter());
        keys.update(begin + IDLE / 2, [(1, [5]), (2, [1])].into_iter());
        assert_eq!(keys.shown(), [(1, [5])]);
        keys.update(begin + IDLE, [(1, [5]), (2, [3])].into_iter());
        // What it had before it got the place stays in `other`.
        assert_eq!(keys.shown(), [(2, [2])]);
        assert_eq!(keys.other([8]), [1]);
    }

    #[test]
    fn what_was_other_once_stays_so() {
        let (mut keys, now) = ranking(10);
        keys.update(now, [(1, [5])].into_iter());
        assert_eq!(keys.other([7]), [2]);
        // Two more were counted between the two reads.
        keys.update(now, [(1, [9])].into_iter());
        assert_eq!(keys.other([9]), [2]);
    }
}
