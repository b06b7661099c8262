//! Where the time of a run goes, for the end of its output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::phase::Busy;

/// Scenarios that are named.
const DEAREST: usize = 10;

/// What one scenario has cost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cost {
    /// On the host, from its start until it was cleaned up after.
    pub(crate) host: Duration,
    /// In the guest's time, without the cleaning.
    pub(crate) guest: Duration,
    pub(crate) busy: Busy,
    /// How long the guest's CPUs were busy with cleaning up.
    pub(crate) cleaning: Duration,
}

/// Of a whole run.
#[derive(Debug)]
pub(crate) struct Costs {
    begun: Instant,
    collected: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    boots: Vec<Duration>,
    /// Kernels whose guest never came up and was booted once more, and why.
    booted_again: Vec<String>,
    scenarios: Vec<(String, Cost)>,
    /// Of tests that run on the host, each with a machine of its own.
    host_tests: Vec<(String, Duration)>,
}

impl Costs {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            collected: Mutex::default(),
        }
    }

    fn collect(&self, f: impl FnOnce(&mut Collected)) {
        f(&mut self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner));
    }

    /// A guest was up after this long on the host.
    pub(crate) fn boot(&self, took: Duration) {
        self.collect(|it| it.boots.push(took));
    }

    /// A guest never came up, which says nothing about what is tested in it, and is booted again.
    pub(crate) fn boot_again(&self, kernel: &str, why: &str) {
        let why = why.lines().next().unwrap_or_default();
        self.collect(|it| it.booted_again.push(format!("{kernel}: {why}")));
    }

    pub(crate) fn scenario(&self, name: String, cost: Cost) {
        self.collect(|it| it.scenarios.push((name, cost)));
    }

    pub(crate) fn host_test(&self, name: &str, took: Duration) {
        self.collect(|it| it.host_tests.push((name.to_owned(), took)));
    }

    /// Lines for a person.
    pub(crate) fn summary(&self) -> String {
        let collected = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        collected.summary(self.begun.elapsed())
    }
}

impl Collected {
    fn summary(&self, whole: Duration) -> String {
        let mut text = format!(
            "where {} s of the run went, in seconds of one VM:\n",
            seconds(whole)
        );
        for (what, took) in self.by_phase() {
            line(&mut text, took, what);
        }
        let _ = writeln!(text, "the dearest of {} scenarios:", self.scenarios.len());
        for (name, cost) in self.dearest() {
            // So precisely that one sees whether two runs did the same.
            let guest = cost.guest.as_secs_f64();
            line(
                &mut text,
                cost.host,
                &format!("{name} ({guest:.6} s in the guest)"),
            );
        }
        for (name, took) in &self.host_tests {
            line(&mut text, *took, &format!("{name}, beside them"));
        }
        let again = self.booted_again.len();
        let _ = writeln!(
            text,
            "boots that never came up and were tried once more: {again}"
        );
        for why in &self.booted_again {
            let _ = writeln!(text, "  {why}");
        }
        text
    }

    fn by_phase(&self) -> BTreeMap<&'static str, Duration> {
        let mut phases = BTreeMap::new();
        let mut add = |what, took| *phases.entry(what).or_insert(Duration::ZERO) += took;
        add("booting", self.boots.iter().sum());
        for (_, cost) in &self.scenarios {
            for (what, part) in cost.shares() {
                add(what, cost.host.mul_f64(part));
            }
        }
        phases
    }

    fn dearest(&self) -> Vec<&(String, Cost)> {
        let mut dearest = self.scenarios.iter().collect::<Vec<_>>();
        dearest.sort_by_key(|(_, cost)| std::cmp::Reverse(cost.host));
        dearest.truncate(DEAREST);
        dearest
    }
}

impl Cost {
    /// What a scenario does, and the part that it has of the whole. In virtual time the host pays for
    /// what keeps the guest busy.
    fn shares(&self) -> [(&'static str, f64); 4] {
        let parts = [
            ("agents that start, and their verbs", self.busy.agent),
            ("waiting for what must come true", self.busy.waiting),
            ("faults and checks", self.busy.rest),
            ("cleaning up", self.cleaning),
        ];
        let whole = parts.iter().map(|(_, part)| part).sum::<Duration>();
        parts.map(|(what, part)| match whole {
            Duration::ZERO => (what, 0.25),
            whole => (what, part.div_duration_f64(whole)),
        })
    }
}

fn line(text: &mut String, took: Duration, what: &str) {
    let _ = writeln!(text, "  {:>7} {what}", seconds(took));
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn cost(host: u32) -> Cost {
        Cost {
            host: host * SECOND,
            guest: SECOND,
            busy: Busy {
                agent: 2 * SECOND,
                waiting: SECOND,
                rest: Duration::ZERO,
            },
            cleaning: SECOND,
        }
    }

    #[test]
    fn a_scenarios_time_is_shared_out_by_what_kept_the_guest_busy() {
        let collected = Collected {
            boots: vec![3 * SECOND, 4 * SECOND],
            scenarios: vec![("one".into(), cost(8)), ("two".into(), cost(4))],
            ..Collected::default()
        };
        let phases = collected.by_phase();
        assert_eq!(phases["booting"], 7 * SECOND);
        assert_eq!(phases["agents that start, and their verbs"], 6 * SECOND);
        assert_eq!(phases["waiting for what must come true"], 3 * SECOND);
        assert_eq!(phases["cleaning up"], 3 * SECOND);
        assert_eq!(collected.dearest()[0].0, "one");
    }

    #[test]
    fn a_boot_that_was_tried_again_is_counted() {
        let costs = Costs::new();
        let none = "tried once more: 0";
        assert!(costs.summary().contains(none));
        costs.boot_again("6.1", "QEMU ended\nand more");
        let summary = costs.summary();
        assert!(
            summary.contains("tried once more: 1\n  6.1: QEMU ended\n"),
            "{summary}"
        );
    }
}
