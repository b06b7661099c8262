//! Counters of cgroups, and from when on what they have counted since is known.

use std::time::Duration;

/// A counter as it was read. Times are those of readings, since the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<T> {
    pub(super) value: T,
    /// It had this value at this time.
    pub(super) at: Duration,
    /// But for this much at the most: it was not read at that time, and a cgroup above had hardly
    /// moved since it was.
    pub(super) slack: Duration,
}

impl<T> Counted<T> {
    pub(super) const fn new(value: T, at: Duration) -> Self {
        Self {
            value,
            at,
            slack: Duration::ZERO,
        }
    }
}

/// The time in which a counter of a cgroup hardly moved, so that those of the cgroups below it did
/// not either: who waits in a cgroup waits in each above it, and who runs there runs in each
/// (kernel/sched/psi.c, `psi_task_change`; kernel/cgroup/rstat.c). The kernel leaves out parts of a
/// jiffy each time that it adds up the CPUs of a cgroup (`collect_percpu_times`): by less than that,
/// each two seconds and at each reading, one below can have moved more than the one above.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quiet {
    from: Duration,
    until: Duration,
    /// How much one below can have moved all the same.
    slack: Duration,
}

impl Quiet {
    /// Brings the counter of a cgroup below up to the time until which it cannot have moved.
    pub(super) fn carry<T>(&self, counted: &mut Counted<T>) {
        if self.from <= counted.at && counted.at < self.until {
            counted.at = self.until;
            counted.slack += self.slack;
        }
    }

    /// The own counter was brought up to a later time, too.
    pub(super) fn follow<T>(&mut self, before: Duration, own: &Counted<T>) {
        if self.until == before {
            self.until = own.at;
            self.slack += own.slack;
        }
    }

    /// Between these times one below can have moved by this much at the most.
    pub(super) fn rest(&mut self, from: Duration, until: Duration, most: Duration) {
        if self.until != from {
            self.from = from;
            self.slack = Duration::ZERO;
        }
        self.until = until;
        self.slack += most;
    }

    /// It moved: what was read below before now is as old as it is.
    pub(super) const fn wake(&mut self, now: Duration) {
        self.from = now;
        self.until = now;
        self.slack = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_counter_below_a_quiet_cgroup_is_as_good_as_read_but_for_the_slack() {
        let mut quiet = Quiet::default();
        quiet.rest(S(0), S(5), MS(1));
        quiet.rest(S(5), S(10), MS(2));
        let mut counted = Counted::new(7, S(0));
        quiet.carry(&mut counted);
        assert_eq!((counted.at, counted.slack), (S(10), MS(3)));
        quiet.carry(&mut counted);
        assert_eq!(counted.slack, MS(3), "not twice");
    }

    #[test]
    fn a_counter_that_is_older_than_the_quiet_time_stays_as_old() {
        let mut quiet = Quiet::default();
        quiet.wake(S(10));
        quiet.rest(S(10), S(15), MS(1));
        let mut counted = Counted::new(7, S(5));
        quiet.carry(&mut counted);
        assert_eq!((counted.at, counted.slack), (S(5), S(0)));
        // A gap between two quiet times is not quiet.
        quiet.rest(S(20), S(25), MS(1));
        let mut counted = Counted::new(7, S(10));
        quiet.carry(&mut counted);
        assert_eq!(counted.at, S(10));
    }

    #[test]
    fn the_quiet_of_a_cgroup_above_is_that_of_one_below() {
        let mut above = Quiet::default();
        above.rest(S(0), S(20), MS(4));
        let mut own = Counted::new((), S(5));
        let mut below = Quiet::default();
        below.rest(S(0), S(5), MS(1));
        above.carry(&mut own);
        below.follow(S(5), &own);
        let mut leaf = Counted::new((), S(0));
        below.carry(&mut leaf);
        assert_eq!((leaf.at, leaf.slack), (S(20), MS(5)));
    }
}
