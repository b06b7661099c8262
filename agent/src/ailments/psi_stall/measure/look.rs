//! In what tasks sleep: a look at all of them, for at most a share of the time.

use std::{
    collections::BTreeSet,
    io,
    time::{Duration, Instant},
};

use super::NodeReading;
use crate::kernel::{
    mounts::{self, Mount},
    sleepers::{self, Place, Sleeping},
};

/// Mounts that a reading names.
const MOUNTS: usize = 20;

/// The time that a look may take.
const LONGEST: Duration = Duration::from_millis(100);

/// From one look to the next passes as many times what it took: a twentieth of the time at most,
/// although PSI triggers ask for a reading each second while a stall lasts.
const PAUSE: u32 = 19;

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Look {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    /// When the next may begin.
    next: Instant,
    sleeping: Option<Sleeping>,
    mounts: Vec<Mount>,
}

impl Look {
    /// Puts into the reading what tasks sleep in now, or a moment ago.
    pub(super) fn put_into(&mut self, node: &mut NodeReading) {
        let last = self.at(Instant::now, || sleepers::find(LONGEST), mounts::all);
        node.sleeping.clone_from(&last.sleeping);
        node.mounts.clone_from(&last.mounts);
    }

    fn at(
        &mut self,
        now: impl Fn() -> Instant,
        find: impl FnOnce() -> io::Result<Sleeping>,
        mounts: impl FnOnce() -> io::Result<Vec<Mount>>,
    ) -> &Last {
        let began = now();
        let due = self.last.as_ref().is_none_or(|last| last.next <= began);
        let last = if due { None } else { self.last.take() };
        self.last.insert(last.unwrap_or_else(|| {
            let sleeping = find().ok();
            let mounts = wanted(sleeping.as_ref(), mounts().unwrap_or_default());
            let ended = now();
            Last {
                next: ended + ended.saturating_duration_since(began) * PAUSE,
                sleeping,
                mounts,
            }
        }))
    }
}

/// The mounts that the sleeping tasks may wait for.
fn wanted(sleeping: Option<&Sleeping>, mounts: Vec<Mount>) -> Vec<Mount> {
    let places = sleeping.into_iter().flat_map(|it| &it.sleepers);
    let places: BTreeSet<Place> = places.map(|it| it.place).collect();
    let mounts = mounts.into_iter();
    let wanted = |it: &Mount| places.iter().any(|place| place.is_of(&it.file_system));
    mounts.filter(wanted).take(MOUNTS).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_look_takes_a_twentieth_of_the_time_at_most_and_what_it_found_holds_until_the_next() {
        let clock = Cell::new(Instant::now());
        let looks = Cell::new(0_u32);
        let mut look = Look::default();
        let mut at = || {
            let find = || {
                looks.set(looks.get() + 1);
                clock.set(clock.get() + LONGEST);
                Ok(Sleeping {
                    complete: true,
                    ..Sleeping::default()
                })
            };
            let last = look.at(|| clock.get(), find, || Ok(Vec::new()));
            assert!(last.sleeping.as_ref().is_some_and(|it| it.complete));
        };
        for _ in 0..100 {
            at();
            clock.set(clock.get() + Duration::from_secs(1));
        }
        let took = LONGEST * looks.get();
        assert!(took <= Duration::from_secs(100) / 20, "{took:?}");
        assert!(looks.get() > 10, "{looks:?}");
    }
}
