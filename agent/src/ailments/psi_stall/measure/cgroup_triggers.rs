//! Triggers on the cgroups that have waited most lately. What waits there may be too small a part
//! of a big node to be seen in the node's own pressure, which is the mean of all CPUs at work
//! (kernel/sched/psi.c, `collect_percpu_times`).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    CgroupReading,
    triggers::{Calls, Limits},
};
use crate::{
    ailments::poll_thread::PollThread,
    kernel::{cgroup, pressure::Trigger},
    model::Missing,
};

/// After this long without a wait, what is known of a cgroup counts half.
const HALF: Duration = Duration::from_secs(60);

/// A cgroup that has waited for less than this part of a limit is not armed.
const LEAST: f64 = 0.1;

/// The choice stands for at least this long: who waits most changes all the time.
const STANDS: Duration = Duration::from_secs(30);

/// The triggers, and the choice of who has them.
#[derive(Debug)]
pub(super) struct CgroupTriggers {
    root: PathBuf,
    limits: Limits,
    most: usize,
    calls: Calls,
    /// How long each has waited lately, as a part of the limit.
    lately: HashMap<String, f64>,
    armed: BTreeSet<String>,
    since: Option<Instant>,
    /// Listens; absent while no cgroup is armed.
    poll_thread: Option<PollThread>,
    refused: Option<Missing>,
}

impl CgroupTriggers {
    pub(super) fn new(root: PathBuf, limits: Limits, most: usize, calls: Calls) -> Self {
        Self {
            root,
            limits,
            most,
            calls,
            lately: HashMap::new(),
            armed: BTreeSet::new(),
            since: None,
            poll_thread: None,
            refused: None,
        }
    }

    /// How many cgroups are armed.
    pub(super) fn count(&self) -> u64 {
        self.armed.len() as u64
    }

    /// Why there are none, if the kernel refused.
    pub(super) const fn refused(&self) -> Option<&Missing> {
        self.refused.as_ref()
    }

    /// Learns from a reading's cgroups, and triggers those that have waited most, if they are others.
    pub(super) fn follow(&mut self, cgroups: &[CgroupReading], window: Duration) {
        self.learn(cgroups, window);
        if self.since.is_some_and(|since| since.elapsed() < STANDS) {
            return;
        }
        let wanted = chosen(&self.lately, self.most);
        if wanted != self.armed {
            self.arm(wanted);
        }
    }

    fn learn(&mut self, cgroups: &[CgroupReading], window: Duration) {
        let kept = 0.5_f64.powf(window.div_duration_f64(HALF));
        for share in self.lately.values_mut() {
            *share *= kept;
        }
        for cgroup in cgroups {
            let seconds = cgroup.window_seconds.unwrap_or(window.as_secs_f64());
            let shares = self.limits.iter().map(|(resource, limit)| {
                let waited = cgroup.waits.of(*resource).some / seconds;
                waited / limit.max(f64::EPSILON)
            });
            let share = shares.fold(0.0, f64::max);
            let lately = self.lately.entry(cgroup.path.clone()).or_default();
            *lately = lately.max(share);
        }
        self.lately.retain(|_, share| *share >= LEAST);
    }

    /// A trigger that is not set any more ends before its successor begins.
    fn arm(&mut self, wanted: BTreeSet<String>) {
        self.poll_thread = None;
        self.armed.clear();
        self.refused = None;
        self.since = Some(Instant::now());
        let mut triggers = Vec::new();
        for path in wanted {
            match self.triggers(&path) {
                Ok(set) => {
                    triggers.extend(set);
                    self.armed.insert(path);
                }
                // It was there a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.refused = Some(missing(&path, &error)),
            }
        }
        if triggers.is_empty() {
            return;
        }
        match self.calls.start("psi-cgroups", triggers) {
            Ok(poll_thread) => self.poll_thread = Some(poll_thread),
            Err(error) => {
                tracing::warn!(
                    "stalls of single cgroups are noticed only at the next reading: \
                     {error:#}"
                );
                self.armed.clear();
            }
        }
    }

    fn triggers(&self, path: &str) -> io::Result<Vec<Trigger>> {
        let folder = cgroup::place(&self.root, path);
        let set = |(resource, limit): &_| Trigger::on_cgroup(&folder, *resource, *limit);
        self.limits.iter().map(set).collect()
    }
}

/// Those that have waited longest. Whoever waits makes the cgroups above wait as well, so of a
/// branch it is the lowest.
fn chosen(lately: &HashMap<String, f64>, most: usize) -> BTreeSet<String> {
    let mut candidates: Vec<_> = lately.iter().collect();
    candidates.sort_by(|(a, waited_a), (b, waited_b)| {
        waited_b
            .total_cmp(waited_a)
            .then_with(|| b.len().cmp(&a.len()))
    });
    let mut chosen = BTreeSet::new();
    for (path, _) in candidates {
        if chosen.len() == most {
            break;
        }
        let is_above = |it: &String| Path::new(it).starts_with(path);
        if !chosen.iter().any(is_above) {
            chosen.insert(path.clone());
        }
    }
    chosen
}

fn missing(path: &str, error: &io::Error) -> Missing {
    Missing {
        what: format!("triggers on cgroup {path}"),
        why: format!("the kernel refuses them: {error}"),
        remedy: "run as root with CAP_SYS_RESOURCE, and make the tree of cgroups writable; until \
                 then nodemedic sees stalls of single cgroups at the next reading"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wakeup::WakeUp;
    use crate::{
        ailments::psi_stall::measure::{Wait, Waits},
        kernel::pressure::Resource,
    };

    const WINDOW: Duration = Duration::from_secs(10);

    fn triggers(most: usize) -> CgroupTriggers {
        let limits = [
            (Resource::Cpu, 0.4),
            (Resource::Memory, 0.1),
            (Resource::Io, 0.4),
        ];
        CgroupTriggers::new(
            PathBuf::from("/nonexistent"),
            limits,
            most,
            Calls::new(&WakeUp::default()),
        )
    }

    fn waited(path: &str, cpu: f64, memory: f64) -> CgroupReading {
        let wait = |some| Wait { some, full: 0.0 };
        CgroupReading {
            path: path.to_owned(),
            waits: Waits {
                cpu: wait(cpu),
                memory: wait(memory),
                ..Waits::default()
            },
            ..CgroupReading::default()
        }
    }

    fn choice(triggers: &CgroupTriggers) -> Vec<String> {
        chosen(&triggers.lately, triggers.most)
            .into_iter()
            .collect()
    }

    #[test]
    fn who_is_nearest_to_a_limit_is_armed_and_who_hardly_waits_is_not() {
        let mut triggers = triggers(2);
        let cgroups = [
            waited("/cpu", 3.0, 0.0),
            waited("/memory", 0.0, 0.9),
            waited("/less", 2.0, 0.0),
            waited("/hardly", 0.1, 0.0),
        ];
        triggers.learn(&cgroups, WINDOW);
        assert_eq!(choice(&triggers), ["/cpu", "/memory"]);
        assert_eq!(triggers.lately.len(), 3);
    }

    #[test]
    fn of_a_branch_the_lowest_is_armed() {
        let mut triggers = triggers(4);
        let cgroups = [
            waited("/pods", 3.0, 0.0),
            waited("/pods/a", 3.0, 0.0),
            waited("/pods/a/app", 3.0, 0.0),
            waited("/pods/a/appendix", 2.0, 0.0),
        ];
        triggers.learn(&cgroups, WINDOW);
        assert_eq!(choice(&triggers), ["/pods/a/app", "/pods/a/appendix"]);
    }

    #[test]
    fn who_has_waited_is_forgotten_in_time() {
        let mut triggers = triggers(1);
        triggers.learn(&[waited("/a", 8.0, 0.0)], WINDOW);
        triggers.learn(&[waited("/b", 1.0, 0.0)], WINDOW);
        assert_eq!(choice(&triggers), ["/a"]);
        for _ in 0..30 {
            triggers.learn(&[waited("/b", 1.0, 0.0)], WINDOW);
        }
        assert_eq!(choice(&triggers), ["/b"]);
        for _ in 0..60 {
            triggers.learn(&[], WINDOW);
        }
        assert_eq!(choice(&triggers), Vec::<String>::new());
    }

    #[test]
    fn a_cgroup_that_is_gone_stops_nothing() {
        let mut triggers = triggers(2);
        triggers.follow(&[waited("/gone", 8.0, 0.0)], WINDOW);
        assert_eq!((triggers.count(), triggers.refused().is_some()), (0, false));
    }
}
