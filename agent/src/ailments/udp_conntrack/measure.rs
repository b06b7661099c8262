//! Measuring: the baseline that needs no BPF, and what the probes count.

mod baseline;
mod flows;
mod probed;
mod refused;
mod scan;

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(super) use self::refused::Refusals;
use self::{baseline::Baseline, probed::Probed, scan::Scanner};
pub(super) use self::{
    flows::FlowReading,
    refused::{RefusedFlowReading, RefusedReading},
};
use super::{Settings, support::Plan};
use crate::{
    kernel::conntrack::{Namespace, Snapshot},
    model::{Missing, ProbeReport, ProgramStats},
    node::{Directory, Neighbours},
};

/// The port of DNS.
pub(super) const DNS: u16 = 53;

/// What one tick measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Time since the reading before, seconds: what `window` counts were counted in.
    pub window_seconds: f64,
    /// Our own network namespace, for which the counters below are.
    pub netns: u32,
    /// Entries in its table now.
    pub entries: u64,
    /// `nf_conntrack_max`; `None` where it could not be read, 0 for no limit.
    pub limit: Option<u64>,
    /// `nf_conntrack_buckets`: the size of the hash table that all network namespaces share;
    /// `None` where it could not be read.
    #[serde(default)]
    pub buckets: Option<u64>,
    /// Memory of the machine, bytes.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Timeouts in force in our namespace.
    pub timeouts: Timeouts,
    /// Packets dropped and entries pushed out since boot.
    pub drops: Drops,
    /// The same since the reading before.
    pub window_drops: Drops,
    /// Growth of our own table, entries a second, over the last minute or as long
    /// as it has been watched.
    pub growth: Option<f64>,
    /// Entries of other namespaces, with their growth.
    pub namespaces: Vec<(Namespace, Option<f64>)>,
    /// The last scan of the table.
    pub snapshot: Option<Snapshot>,
    /// When that was, seconds since the epoch.
    pub snapshot_unix_seconds: Option<f64>,
    /// What the probes counted; absent where none is attached.
    pub probed: Option<ProbedReading>,
    /// The pods behind these addresses and namespaces.
    #[serde(default)]
    pub neighbours: Neighbours,
}

/// `nf_conntrack_udp_timeout` and `_stream`, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Of a flow that is not assured.
    pub unreplied: Option<u64>,
    /// Of one that is.
    pub stream: Option<u64>,
}

/// Counters of `/proc/net/stat/nf_conntrack`; `None` where there is no such column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Packets dropped without an entry, or because theirs lost a clash.
    pub drop: Option<u64>,
    /// Entries pushed out.
    pub early_drop: Option<u64>,
    /// Entries that were not inserted: they lost a clash, or their chain was too long.
    pub insert_failed: Option<u64>,
    /// Entries that were refused because their hash chain was too long. `insert_failed` includes
    /// them, and `drop` does not.
    #[serde(default)]
    pub chain_too_long: Option<u64>,
    /// Packets that met an equal entry and went on.
    #[serde(default)]
    pub clash_resolved: Option<u64>,
    /// Packets that fit no connection.
    #[serde(default)]
    pub invalid: Option<u64>,
}

/// What the probes counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedReading {
    /// Since the agent began.
    pub total: Counts,
    /// Since the reading before.
    pub window: Counts,
    /// Flows that metrics show, with their counts since they are shown.
    pub shown: Vec<FlowReading>,
    /// Creations in all other flows, since the agent began.
    pub other_created: u64,
    /// Flows with most creations in the window, most first.
    pub top: Vec<FlowReading>,
    /// Events lost since the agent began, by reason.
    pub lost: Vec<(String, u64)>,
    /// Whether lifetimes and ends are known, not creations alone.
    pub removals: bool,
    /// Connections that the tables refused.
    #[serde(default)]
    pub refused: RefusedReading,
}

/// Counts of all flows together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// UDP entries made.
    pub created: u64,
    /// Entries of other protocols made.
    pub created_other: u64,
    /// UDP entries removed, by end and state, in the order of the ABI.
    pub removed: Vec<Vec<u64>>,
    /// Entries of other protocols removed.
    pub removed_other: u64,
    /// Seconds for which entries stood in the table after the last packet of a flow
    /// that was never assured; `None` where the length of a jiffy is unknown.
    pub wasted_seconds: Option<f64>,
    /// Lifetimes by bucket of the ABI, not cumulative.
    pub lifetimes: Vec<u64>,
    /// Sum of the lifetimes, seconds.
    pub lifetime_seconds: f64,
}

impl Drops {
    /// Packets that lost a clash: another packet had inserted an equal entry, and theirs could
    /// not be changed. They count as `drop` and as `insert_failed` (`nf_ct_resolve_clash`,
    /// nf_conntrack_core.c). Those of a chain that is too long count as `insert_failed` alone
    /// (`__nf_conntrack_confirm`). `None` where there is no such column.
    pub fn clash_lost(&self) -> Option<u64> {
        let chain_too_long = self.refused_by_length().unwrap_or(0);
        self.insert_failed
            .map(|failed| failed.saturating_sub(chain_too_long))
    }

    /// Packets that found their chain too long. Each counts as `insert_failed` too, so there are
    /// not more of them than of those. `None` where there is no such column.
    pub fn refused_by_length(&self) -> Option<u64> {
        let most = self.insert_failed.unwrap_or(u64::MAX);
        self.chain_too_long.map(|count| count.min(most))
    }

    /// Packets dropped because no entry could be made; `None` where there is no such column.
    pub fn for_want_of_room(&self) -> Option<u64> {
        self.drop
            .map(|drop| drop.saturating_sub(self.clash_lost().unwrap_or(0)))
    }
}

impl Counts {
    /// UDP entries removed.
    pub fn removed_total(&self) -> u64 {
        self.removed.iter().flatten().sum()
    }
}

impl Reading {
    /// Entries in the hash table, which all network namespaces share.
    pub fn entries_of_all(&self) -> u64 {
        let others = self.namespaces.iter().map(|(other, _)| other.entries);
        self.entries + others.sum::<u64>()
    }

    /// Mean length of a hash chain. Each entry stands in two chains, one for each direction
    /// (`__nf_conntrack_hash_insert`, nf_conntrack_core.c).
    pub fn chain_length(&self) -> Option<f64> {
        let buckets = self.buckets.filter(|buckets| *buckets > 0)?;
        Some(2.0 * self.entries_of_all() as f64 / buckets as f64)
    }

    /// Finds the pods behind the sources and the namespaces.
    pub(super) fn identify(&mut self, directory: &Directory) {
        let probed = self.probed.iter();
        let flows = probed.clone();
        let flows = flows.flat_map(|it| it.shown.iter().chain(&it.top));
        let standing = self.snapshot.iter().flat_map(|it| &it.udp_sources);
        let sources = flows
            .clone()
            .map(|flow| flow.source)
            .chain(standing.map(|(source, _)| *source));
        let tables = self.namespaces.iter();
        let tables = tables.map(|(namespace, _)| (namespace.netns, Some(namespace.pid)));
        let refused = || probed.clone().flat_map(|it| &it.refused.flows);
        let sources = sources.chain(refused().filter_map(|flow| flow.source));
        let refused = refused().map(|flow| (flow.netns, None));
        let namespaces = flows.map(|flow| (flow.netns, None)).chain(tables);
        let namespaces = namespaces.chain(refused);
        self.neighbours = Neighbours::find(directory, sources, namespaces);
    }

    /// Events that the probes lost since the agent began, by reason.
    pub fn lost_events(&self) -> Vec<(String, u64)> {
        self.probed
            .as_ref()
            .map(|probed| probed.lost.clone())
            .unwrap_or_default()
    }

    /// Whether most UDP entries in the table are those of streams.
    pub fn streams_dominate(&self) -> bool {
        self.snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.udp.assured * 2 > snapshot.udp.total())
    }

    /// Whether most UDP entries are of DNS: among those made in the window where
    /// probes count them, else among those in the table.
    pub fn dns_dominates(&self) -> bool {
        let (dns, all) = match (&self.probed, &self.snapshot) {
            (Some(probed), _) if probed.window.created > 0 => {
                let dns = probed.top.iter().filter(|flow| flow.port == DNS);
                (dns.map(|flow| flow.created).sum(), probed.window.created)
            }
            (_, Some(snapshot)) => {
                let dns = snapshot.udp_ports.iter().filter(|(port, _)| *port == DNS);
                (dns.map(|(_, entries)| *entries).sum(), snapshot.udp.total())
            }
            _ => (0, 0),
        };
        all > 0 && dns * 2 > all
    }
}

/// The running measurement.
#[derive(Debug)]
pub struct Measurement {
    baseline: Baseline,
    probed: Result<Probed, Missing>,
    missing: Vec<ProbeReport>,
}

impl Measurement {
    /// Attaches what the plan names, as far as the kernel lets it.
    pub(super) fn attach(plan: Plan, settings: &Settings) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        if let Err(why) = &plan.hz {
            missing.push(ProbeReport::not_measured("idle_time", why));
        }
        let baseline = Baseline::new(Scanner::new(settings, &plan.scans))?;
        let probed = Probed::attach(&plan, settings).map_err(|error| Missing::all_probes(&error));
        if let Err(why) = &probed {
            missing.extend(
                plan.probes
                    .iter()
                    .map(|planned| ProbeReport::not_measured(planned.probe.name, why)),
            );
        }
        Ok(Self {
            baseline,
            probed,
            missing,
        })
    }

    pub(super) fn probes(&self) -> Vec<ProbeReport> {
        let attached = self.probed.iter().flat_map(Probed::reports).cloned();
        attached
            .chain([self.baseline.scans()])
            .chain(self.missing.iter().cloned())
            .collect()
    }

    pub(super) fn measure(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let mut reading = self.baseline.read(window)?;
        if let Ok(probed) = &mut self.probed {
            reading.probed = probed.read()?;
        }
        Ok(reading)
    }

    pub(super) fn idle(&self) -> bool {
        self.probed.as_ref().is_ok_and(Probed::idle)
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probed.iter().flat_map(Probed::programs).collect()
    }
}
