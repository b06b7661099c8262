//! What procfs and ctnetlink say: works on every kernel and without privileges
//! for BPF.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{Drops, Neighbours, Reading, Timeouts, scan::Scanner};
use crate::{
    kernel::{
        conntrack::{self, Counter, Namespace, Stat},
        netns::{self, Namespaces},
        sysctl,
    },
    model::ProbeReport,
};

/// Growth is taken over this long: the kernel sweeps expired entries out by the
/// batch, and a shorter look would see waves.
const GROWTH_WINDOW: Duration = Duration::from_secs(60);

/// Reads the table's counters, and scans it now and then.
#[derive(Debug)]
pub(super) struct Baseline {
    netns: u32,
    namespaces: Namespaces,
    /// Entries over the last minute, by namespace.
    history: BTreeMap<u32, History>,
    /// The counters at the last reading, and all events up to then.
    before: Stat,
    total: Drops,
    scanner: Scanner,
}

/// Numbers of entries, each with its time, oldest first.
#[derive(Debug, Default)]
struct History(VecDeque<(Instant, u64)>);

impl Baseline {
    /// Begins to watch: the first reading already tells what has changed since.
    pub(super) fn new(scanner: Scanner) -> anyhow::Result<Self> {
        let netns = netns::own().context("find our own network namespace")?;
        let stat = stat()?;
        let now = Instant::now();
        let mut baseline = Self {
            netns,
            namespaces: Namespaces::default(),
            history: BTreeMap::new(),
            total: Drops::of(&stat),
            before: Stat::default(),
            scanner,
        };
        baseline.grown(netns, now, stat.entries);
        baseline.before = stat;
        baseline.others(now);
        Ok(baseline)
    }

    pub(super) fn read(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let stat = stat()?;
        let now = Instant::now();
        let window_drops = Drops::since(&stat, &self.before);
        self.total = self.total.and(window_drops);
        let namespaces = self.others(now);
        let growth = self.grown(self.netns, now, stat.entries);
        let entries = stat.entries;
        self.before = stat;
        self.scanner.scan_if_due();
        let scan = self.scanner.last();
        Ok(Reading {
            window_seconds: window.as_secs_f64(),
            netns: self.netns,
            entries,
            limit: number("net.netfilter.nf_conntrack_max")?,
            buckets: number("net.netfilter.nf_conntrack_buckets")?,
            memory: Some(memory()),
            timeouts: Timeouts {
                unreplied: number("net.netfilter.nf_conntrack_udp_timeout")?,
                stream: number("net.netfilter.nf_conntrack_udp_timeout_stream")?,
            },
            drops: self.total,
            window_drops,
            growth,
            namespaces,
            snapshot: scan.map(|(_, snapshot)| snapshot.clone()),
            snapshot_unix_seconds: scan.map(|(at, _)| *at),
            probed: None,
            neighbours: Neighbours::default(),
        })
    }

    /// A row of the table of probes.
    pub(super) fn scans(&self) -> ProbeReport {
        self.scanner.report()
    }

    /// The entries of the other namespaces, with their growth.
    fn others(&mut self, now: Instant) -> Vec<(Namespace, Option<f64>)> {
        let own = self.netns;
        let counted = conntrack::count(&mut self.namespaces).into_iter();
        let others: Vec<_> = counted.filter(|other| other.netns != own).collect();
        self.history
            .retain(|netns, _| *netns == own || others.iter().any(|other| other.netns == *netns));
        let grown = |other: Namespace| (other, self.grown(other.netns, now, other.entries));
        others.into_iter().map(grown).collect()
    }

    fn grown(&mut self, netns: u32, now: Instant, entries: u64) -> Option<f64> {
        self.history.entry(netns).or_default().grown(now, entries)
    }
}

/// The counters of our namespace. Without procfs's file the count alone is left.
fn stat() -> anyhow::Result<Stat> {
    match conntrack::read_stat("self") {
        Ok(stat) => Ok(stat),
        Err(error) => {
            let entries = number("net.netfilter.nf_conntrack_count")?.ok_or(error)?;
            Ok(Stat {
                entries,
                ..Stat::default()
            })
        }
    }
}

/// Memory of the machine, bytes.
fn memory() -> u64 {
    let system = rustix::system::sysinfo();
    (system.totalram as u64).saturating_mul(u64::from(system.mem_unit))
}

fn number(key: &str) -> anyhow::Result<Option<u64>> {
    Ok(sysctl::read_number(key)?)
}

impl Drops {
    /// Of all CPUs since boot, as far as none has wrapped before the agent began.
    fn of(stat: &Stat) -> Self {
        Self::each(stat, |counter, _| counter.sum(), &Stat::default())
    }

    fn since(stat: &Stat, before: &Stat) -> Self {
        Self::each(stat, Counter::since, before)
    }

    fn each(now: &Stat, events: impl Fn(&Counter, &Counter) -> u64, before: &Stat) -> Self {
        let none = Counter::default();
        let events = |now: &Option<Counter>, before: &Option<Counter>| {
            let now = now.as_ref()?;
            Some(events(now, before.as_ref().unwrap_or(&none)))
        };
        Self {
            drop: events(&now.drop, &before.drop),
            early_drop: events(&now.early_drop, &before.early_drop),
            insert_failed: events(&now.insert_failed, &before.insert_failed),
            chain_too_long: events(&now.chain_too_long, &before.chain_too_long),
            clash_resolved: events(&now.clash_resolved, &before.clash_resolved),
            invalid: events(&now.invalid, &before.invalid),
        }
    }

    /// The events of both, of the columns that the later has.
    fn and(self, later: Self) -> Self {
        let sum = |one: Option<u64>, more: Option<u64>| Some(one.unwrap_or(0) + more?);
        Self {
            drop: sum(self.drop, later.drop),
            early_drop: sum(self.early_drop, later.early_drop),
            insert_failed: sum(self.insert_failed, later.insert_failed),
            chain_too_long: sum(self.chain_too_long, later.chain_too_long),
            clash_resolved: sum(self.clash_resolved, later.clash_resolved),
            invalid: sum(self.invalid, later.invalid),
        }
    }
}

impl History {
    /// Notes a number and returns its growth a second since the oldest that is
    /// within the window; `None` for the first.
    fn grown(&mut self, now: Instant, entries: u64) -> Option<f64> {
        while self.0.len() > 1
            && self
                .0
                .front()
                .is_some_and(|(at, _)| now - *at > GROWTH_WINDOW)
        {
            self.0.pop_front();
        }
        let growth = self.0.front().map(|(at, before)| {
            (entries as f64 - *before as f64) / (now - *at).as_secs_f64().max(f64::EPSILON)
        });
        self.0.push_back((now, entries));
        growth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_taken_over_a_minute_and_not_at_first() {
        let begin = Instant::now();
        let mut history = History::default();
        assert_eq!(history.grown(begin, 100), None);
        assert_eq!(
            history.grown(begin + Duration::from_secs(10), 300),
            Some(20.0)
        );
        assert_eq!(
            history.grown(begin + Duration::from_secs(60), 700),
            Some(10.0)
        );
        // The first is over a minute old now: 300 at 10 s is the oldest.
        assert_eq!(
            history.grown(begin + Duration::from_secs(70), 900),
            Some(10.0)
        );
    }
}
