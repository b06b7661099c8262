//! The verdict: a pure function of a reading and the limits.

mod clash;
mod few_buckets;
mod full;
mod refused;

use super::{
    Settings,
    advice::advice,
    measure::{FlowReading, Reading},
};

use crate::model::{Evidence, Finding, Party, Severity};

pub(super) const TABLE_FULL: &str = "table_full";
pub(super) const FEW_BUCKETS: &str = "few_buckets";
pub(super) const CLASH: &str = "clash";
pub(super) const TABLE_FILLING: &str = "table_filling";
pub(super) const IDLE_ENTRIES: &str = "idle_entries";

/// Parties that a finding names.
const NAMED: usize = 5;

/// With fewer lifetimes than this in a window, the timeout stands for them.
const ENOUGH_LIFETIMES: u64 = 100;

/// What is wrong, worst first. A table that is full is not also called filling.
pub(super) fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
    let pressed = full::full(reading).or_else(|| filling(reading, settings));
    let found = [
        pressed,
        few_buckets::few_buckets(reading, settings),
        clash::clash(reading),
        wasteful(reading, settings),
    ];
    let mut found: Vec<_> = found.into_iter().flatten().collect();
    // The sort is stable: of two that are as bad the order is that of the kinds.
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// What harms nobody by itself.
pub(super) fn notes(reading: &Reading) -> Vec<String> {
    let rate = |count: Option<u64>| {
        let rate = per_second(reading, count?);
        (rate >= NOTED).then_some(rate)
    };
    let resolved = rate(reading.window_drops.clash_resolved).map(|rate| {
        format!(
            "{rate:.1} packets a second met an equal entry of the connection tracking table and \
             went on: nothing was lost"
        )
    });
    let invalid = rate(reading.window_drops.invalid).map(|rate| {
        format!(
            "{rate:.1} packets a second fit no tracked connection (INVALID): they pass without \
             translation, unless a rule drops them; the kernel does not count which"
        )
    });
    resolved.into_iter().chain(invalid).collect()
}

/// What keeps a reading without findings from showing a healthy table.
pub(super) fn unknown(reading: &Reading, settings: &Settings) -> Vec<String> {
    let refused = reading.probed.as_ref().map(|probed| probed.refused.total);
    let drops = reading.window_drops.for_want_of_room();
    let probed = refused.and_then(|refused| refused.table_full);
    let drops = (drops.is_none() && probed.is_none()).then_some(
        "cannot tell whether the connection tracking table drops packets: \
         /proc/net/stat/nf_conntrack has no column drop, and the probe early_drops is not attached",
    );
    let growth = reading.growth.is_none().then_some(
        "cannot tell how fast the connection tracking table grows: this is its first look",
    );
    let buckets = reading.buckets.is_none().then_some(
        "cannot tell how long hash chains are: net.netfilter.nf_conntrack_buckets is not visible",
    );
    let limit = reading.limit.is_none().then_some(
        "cannot tell how full the connection tracking table is: \
         net.netfilter.nf_conntrack_max is not visible here; run the agent in the network \
         namespace of the node",
    );
    let evictions = reading.window_drops.early_drop.is_none().then_some(
        "cannot tell whether the connection tracking table evicts entries: \
         /proc/net/stat/nf_conntrack has no column early_drop",
    );
    let known = [drops, evictions, growth, buckets, limit];
    let known = known.into_iter().flatten().map(str::to_owned);
    known
        .chain(not_inserted(reading))
        .chain(idle_is_unknown(reading, settings))
        .collect()
}

/// Entries that were not inserted count in one column; what tells why is in two others.
fn not_inserted(reading: &Reading) -> Option<String> {
    let drops = &reading.window_drops;
    let probed = reading.probed.as_ref();
    let probed = probed.is_some_and(|it| it.refused.total.clash_lost.is_some());
    if probed || (drops.drop.is_some() && drops.chain_too_long.is_some()) {
        return None;
    }
    let Some(failed) = drops.insert_failed else {
        return Some(
            "cannot tell whether packets lose a race for an entry: /proc/net/stat/nf_conntrack has \
             no column insert_failed, and the probe creations is not attached"
                .to_owned(),
        );
    };
    // Without the column of long chains each of them may have met one, though it may as well be one
    // of the packets that count as dropped too.
    let explained = drops.refused_by_length().unwrap_or(0);
    (failed > explained).then(|| {
        let unexplained = failed - explained;
        format!(
            "cannot tell why {unexplained} entries were not inserted into the connection tracking \
             table: the kernel does not count races and long chains apart"
        )
    })
}

/// Only where idle entries would matter.
fn idle_is_unknown(reading: &Reading, settings: &Settings) -> Option<String> {
    let limit = reading.limit.filter(|limit| *limit > 0)?;
    let used = reading.entries as f64 / limit as f64;
    let matters = used > settings.idle_entries_usage_ratio && idle_entries(reading).is_none();
    matters.then(|| {
        "cannot tell how many entries of the connection tracking table are idle: no scan, and no \
         probe on removals"
            .to_owned()
    })
}

/// Notes tell of what happens as often as this, a second.
const NOTED: f64 = 1.0;

fn per_second(reading: &Reading, count: u64) -> f64 {
    count as f64 / reading.window_seconds.max(f64::EPSILON)
}

/// A counter of the kernel for the agent's own network namespace, where it rose.
fn counted(reason: &str, count: u64) -> Option<Evidence> {
    (count > 0).then(|| Evidence {
        metric: format!("nodemedic_conntrack_drops_total{{reason={reason:?}}} in the window"),
        value: count as f64,
        limit: Some(0.0),
    })
}

/// Who needs an entry of a table.
fn new_connections(reading: &Reading, netns: u32) -> String {
    format!(
        "new connections in network namespace {}",
        reading.neighbours.netns(netns)
    )
}

/// The table will be full soon, or nearly is.
fn filling(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let table = tightest(reading)?;
    let forecast = seconds_to_full(reading).filter(|_| will_overflow(reading));
    let soon = forecast.filter(|seconds| *seconds < settings.table_filling_within.as_secs_f64());
    let nearly = table.share() > settings.table_filling_ratio;
    if soon.is_none() && !nearly {
        return None;
    }
    let mut evidence = Vec::new();
    if let Some(seconds) = soon {
        evidence.push(Evidence {
            metric: "nodemedic_conntrack_seconds_to_full".to_owned(),
            value: seconds,
            limit: Some(settings.table_filling_within.as_secs_f64()),
        });
    }
    evidence.push(usage(&table));
    Some(Finding {
        kind: TABLE_FILLING.to_owned(),
        severity: Severity::Warning,
        summary: match soon {
            Some(seconds) => format!(
                "the connection tracking table will be full in {seconds:.0} s at its current \
                 growth"
            ),
            None => format!(
                "{:.0} % of the connection tracking table is in use",
                table.share() * 100.0
            ),
        },
        evidence,
        culprits: culprits(reading),
        victims: vec![Party {
            who: new_connections(reading, table.netns),
            share: "none yet".to_owned(),
        }],
        remedies: advice(reading),
        follows_load: false,
    })
}

/// Most of the table stands idle after exchanges that are over.
fn wasteful(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let limit = reading.limit.filter(|limit| *limit > 0)?;
    let idle = idle_entries(reading)?;
    let share = idle / (reading.entries.max(1) as f64);
    let used = reading.entries as f64 / limit as f64;
    if share <= settings.idle_entries_ratio || used <= settings.idle_entries_usage_ratio {
        return None;
    }
    let owner = if reading.dns_dominates() {
        "DNS queries"
    } else {
        "short UDP exchanges"
    };
    Some(Finding {
        kind: IDLE_ENTRIES.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "about {idle:.0} of {} entries are idle after finished {owner}",
            reading.entries
        ),
        evidence: vec![
            Evidence {
                metric: "idle UDP entries / nodemedic_conntrack_entries".to_owned(),
                value: share,
                limit: Some(settings.idle_entries_ratio),
            },
            Evidence {
                metric: "nodemedic_conntrack_entries / nodemedic_conntrack_entries_limit"
                    .to_owned(),
                value: used,
                limit: Some(settings.idle_entries_usage_ratio),
            },
        ],
        culprits: culprits(reading),
        victims: Vec::new(),
        remedies: advice(reading),
        follows_load: false,
    })
}

/// Entries that stand idle now. By Little's law it is the rate at which idle time
/// is measured; without probes, the entries that a scan found not assured.
fn idle_entries(reading: &Reading) -> Option<f64> {
    let measured = reading.probed.as_ref().and_then(|probed| {
        let wasted = probed.window.wasted_seconds.filter(|_| probed.removals)?;
        (wasted > 0.0 && reading.window_seconds > 0.0).then(|| wasted / reading.window_seconds)
    });
    let scanned = reading
        .snapshot
        .as_ref()
        .filter(|snapshot| snapshot.complete)
        .map(|snapshot| (snapshot.udp.unreplied + snapshot.udp.replied) as f64);
    // The kernel removes in batches, so that the rate of one window may be far off
    // either way; the scan is exact, but a minute old.
    match (measured, scanned) {
        (_, Some(scanned)) => Some(scanned.min(reading.entries as f64)),
        (Some(measured), None) => Some(measured.min(reading.entries as f64)),
        (None, None) => None,
    }
}

/// One namespace's table against the limit.
struct Table {
    netns: u32,
    entries: u64,
    limit: u64,
    growth: Option<f64>,
}

impl Table {
    fn share(&self) -> f64 {
        self.entries as f64 / self.limit as f64
    }

    fn seconds_to_full(&self) -> Option<f64> {
        let growth = self.growth.filter(|growth| *growth > 0.0)?;
        Some(self.limit.saturating_sub(self.entries) as f64 / growth)
    }
}

fn tables(reading: &Reading) -> impl Iterator<Item = Table> {
    let limit = reading.limit.unwrap_or(0);
    let own = (reading.netns, reading.entries, reading.growth);
    let others = reading
        .namespaces
        .iter()
        .map(|(namespace, growth)| (namespace.netns, namespace.entries, *growth));
    std::iter::once(own)
        .chain(others)
        .map(move |(netns, entries, growth)| Table {
            netns,
            entries,
            limit,
            growth,
        })
        // Up to 6.12 zero means no limit.
        .filter(|table| table.limit > 0)
}

fn tightest(reading: &Reading) -> Option<Table> {
    tables(reading).max_by_key(|table| table.entries)
}

/// Seconds until the first table is full if it goes on growing; `None` while none
/// grows, or there is no limit.
pub(super) fn seconds_to_full(reading: &Reading) -> Option<f64> {
    tables(reading)
        .filter_map(|table| table.seconds_to_full())
        .min_by(f64::total_cmp)
}

/// Whether growth would end above the limit rather than level off below it: a new
/// load fills the table in a straight line until its first entries expire.
///
/// By Little's law UDP entries level off at rate of creation x time they stand.
/// Without probes there is no rate, and the straight line is believed.
fn will_overflow(reading: &Reading) -> bool {
    let (Some(probed), Some(limit)) = (&reading.probed, reading.limit) else {
        return true;
    };
    let Some(timeout) = reading.timeouts.unreplied else {
        return true;
    };
    let lifetimes: u64 = probed.window.lifetimes.iter().sum();
    let stands = if lifetimes >= ENOUGH_LIFETIMES {
        (probed.window.lifetime_seconds / lifetimes as f64).max(timeout as f64)
    } else {
        timeout as f64
    };
    let rate = probed.window.created as f64 / reading.window_seconds.max(f64::EPSILON);
    let udp_now = reading
        .snapshot
        .as_ref()
        .map_or(0, |snapshot| snapshot.udp.total());
    let others = reading.entries.saturating_sub(udp_now) as f64;
    others + rate * stands > limit as f64
}

fn usage(table: &Table) -> Evidence {
    Evidence {
        metric: format!("nodemedic_conntrack_entries{{netns=\"{}\"}}", table.netns),
        value: table.entries as f64,
        limit: Some(table.limit as f64),
    }
}

/// Who makes the entries: by the probes' counts of the window, else by what stands
/// in the table.
fn culprits(reading: &Reading) -> Vec<Party> {
    match (&reading.probed, &reading.snapshot) {
        (Some(probed), _) if !probed.top.is_empty() => probed
            .top
            .iter()
            .take(NAMED)
            .map(|flow| maker(reading, flow, probed.window.created))
            .collect(),
        (_, Some(snapshot)) => snapshot
            .udp_sources
            .iter()
            .take(NAMED)
            .map(|(source, entries)| Party {
                who: format!("source {}", reading.neighbours.address(*source)),
                share: format!("{entries} of {} UDP entries", snapshot.udp.total()),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn maker(reading: &Reading, flow: &FlowReading, all: u64) -> Party {
    let neighbours = &reading.neighbours;
    let port = match flow.port {
        0 => "ephemeral ports".to_owned(),
        53 => "port 53 (DNS)".to_owned(),
        port => format!("port {port}"),
    };
    Party {
        who: format!(
            "source {} to {port} in network namespace {}",
            neighbours.address(flow.source),
            neighbours.netns(flow.netns)
        ),
        share: format!(
            "{:.1} entries/s, {:.0} % of all UDP",
            flow.created as f64 / reading.window_seconds.max(f64::EPSILON),
            100.0 * flow.created as f64 / all.max(1) as f64
        ),
    }
}

#[cfg(test)]
mod tests;
