//! Counts of all CPUs and services together.

use ebpf::ipvs_conn_reuse::{DELAY_BUCKETS, Outcome, Reason, Totals};
use serde::{Deserialize, Serialize};

use super::Syns;
use crate::ailments::counters;

/// Counts of all services together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// SYNs by outcome and reason, in the order of the ABI.
    pub syns: Vec<Vec<u64>>,
    /// Delays by bucket of the ABI, not cumulative.
    pub delays: Vec<u64>,
    /// Sum of the delays, seconds.
    pub delay_seconds: f64,
    /// Clients that had no connection when they were taken to have given up.
    pub never_connected: u64,
}

impl Counts {
    /// Of nothing.
    pub(in crate::ailments::ipvs_conn_reuse) fn empty() -> Self {
        Self::sum(std::iter::empty(), 0)
    }

    /// Adds the counts of all CPUs.
    pub(super) fn sum<'a>(per_cpu: impl Iterator<Item = &'a Totals>, never_connected: u64) -> Self {
        let mut counts = Self {
            syns: vec![vec![0; Reason::ALL.len()]; Outcome::ALL.len()],
            delays: vec![0; DELAY_BUCKETS],
            never_connected,
            ..Self::default()
        };
        let mut delay_ns = 0;
        for totals in per_cpu {
            let syns = counts.syns.iter_mut().flatten();
            counters::add(syns, totals.syns.iter().flatten());
            counters::add(counts.delays.iter_mut(), totals.delays.buckets.iter());
            delay_ns += totals.delays.sum_ns;
        }
        counts.delay_seconds = delay_ns as f64 / 1e9;
        counts
    }

    /// Adds what was counted in another time.
    pub(super) fn add(&mut self, other: &Self) {
        counters::add(self.syns.iter_mut().flatten(), other.syns.iter().flatten());
        counters::add(self.delays.iter_mut(), other.delays.iter());
        self.delay_seconds += other.delay_seconds;
        self.never_connected += other.never_connected;
    }

    /// What was counted since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut counts = self.clone();
        let syns = counts.syns.iter_mut().flatten();
        counters::subtract(syns, before.syns.iter().flatten());
        counters::subtract(counts.delays.iter_mut(), before.delays.iter());
        counts.delay_seconds -= before.delay_seconds;
        counts.never_connected -= before.never_connected;
        counts
    }

    /// SYNs with this outcome and for this reason.
    pub fn of(&self, outcome: Outcome, reason: Reason) -> u64 {
        let reasons = self.syns.get(outcome as usize);
        let count = reasons.and_then(|reasons| reasons.get(reason as usize));
        count.copied().unwrap_or(0)
    }

    /// SYNs by outcome alone.
    pub fn outcomes(&self) -> Syns {
        Syns::from(std::array::from_fn(|outcome| {
            self.syns
                .get(outcome)
                .map_or(0, |reasons| reasons.iter().sum())
        }))
    }
}

impl Syns {
    /// All, whatever became of them.
    pub fn total(&self) -> u64 {
        self.by_outcome().into_iter().map(|(_, syns)| syns).sum()
    }

    /// Both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self::from(Outcome::ALL.map(|outcome| self.of(outcome) + other.of(outcome)))
    }

    /// Each count with its outcome.
    pub fn by_outcome(&self) -> [(Outcome, u64); Outcome::ALL.len()] {
        Outcome::ALL.map(|outcome| (outcome, self.of(outcome)))
    }

    /// Those with this outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Rescheduled => self.rescheduled,
            Outcome::Dropped => self.dropped,
            Outcome::DroppedSilently => self.dropped_silently,
            Outcome::StaleDestination => self.stale_destination,
        }
    }
}

impl From<[u64; Outcome::ALL.len()]> for Syns {
    /// From the order of the ABI.
    fn from(counts: [u64; Outcome::ALL.len()]) -> Self {
        Self {
            rescheduled: counts[Outcome::Rescheduled as usize],
            dropped: counts[Outcome::Dropped as usize],
            dropped_silently: counts[Outcome::DroppedSilently as usize],
            stale_destination: counts[Outcome::StaleDestination as usize],
        }
    }
}
