//! The ailment's metrics: the only definition of each, and how a reading fills them.

use ebpf::udp_conntrack::{End, LIFETIME_UNIT_NS, State};

use super::{Reading, judge::seconds_to_full, measure::ProbedReading};
use crate::{
    kernel::conntrack::Namespace,
    model::{MetricDef, MetricKind, MetricValue, Sample},
};

/// Namespaces whose entries are shown one by one; the rest is `other`.
const MAX_NAMESPACES: usize = 100;

pub(super) const ALL: &[MetricDef] = &[
    CREATED,
    SOURCE_INFO,
    REMOVED,
    UDP_ENTRIES,
    LIFETIME,
    WASTED,
    TIMEOUT,
    WALK_SECONDS,
    WALK_TIMESTAMP,
    CREATED_BY_PROTOCOL,
    REMOVED_BY_PROTOCOL,
    ENTRIES,
    NETNS_INFO,
    LIMIT,
    DROPS,
    SECONDS_TO_FULL,
];

const CREATED: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_created_total",
    kind: MetricKind::Counter,
    help: "UDP entries made in the connection tracking table, by network namespace, destination \
           port (ephemeral: 32768 and above) and source address.",
    labels: &["netns", "port", "source"],
};

/// Apart from the counter, whose series must not change when a name is found out.
const SOURCE_INFO: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_source_info",
    kind: MetricKind::Gauge,
    help: "Always 1: the pod of Kubernetes that has a source address for itself. The labels are \
           empty where it is of none that is known. Beside these, label_*: the labels of the pod \
           that node.pod_labels names.",
    labels: &["source", "namespace", "pod"],
};

const REMOVED: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_removed_total",
    kind: MetricKind::Counter,
    help: "UDP entries removed, by how they ended and what their flow had become.",
    labels: &["reason", "state"],
};

const UDP_ENTRIES: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_entries",
    kind: MetricKind::Gauge,
    help: "UDP entries in the table of the agent's network namespace at the last scan, by what \
           their flow has become.",
    labels: &["state"],
};

const LIFETIME: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_lifetime_seconds",
    kind: MetricKind::Histogram,
    help: "Time from the creation of a UDP entry to its removal.",
    labels: &[],
};

const WASTED: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_wasted_entry_seconds_total",
    kind: MetricKind::Counter,
    help: "Seconds for which removed UDP entries had stood in the table after the last packet of \
           a flow that never became a stream; its rate is the number of entries standing idle.",
    labels: &[],
};

const TIMEOUT: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_timeout_seconds",
    kind: MetricKind::Gauge,
    help: "Timeouts in force: nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream.",
    labels: &["timeout"],
};

const WALK_SECONDS: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_scan_seconds",
    kind: MetricKind::Gauge,
    help: "Time that the last scan of the table through ctnetlink took.",
    labels: &[],
};

const WALK_TIMESTAMP: MetricDef = MetricDef {
    name: "nodemedic_udp_conntrack_scan_timestamp_seconds",
    kind: MetricKind::Gauge,
    help: "When the table was last scanned through ctnetlink, in seconds since the epoch.",
    labels: &[],
};

const CREATED_BY_PROTOCOL: MetricDef = MetricDef {
    name: "nodemedic_conntrack_created_total",
    kind: MetricKind::Counter,
    help: "Entries made in the connection tracking tables of all network namespaces.",
    labels: &["protocol"],
};

const REMOVED_BY_PROTOCOL: MetricDef = MetricDef {
    name: "nodemedic_conntrack_removed_total",
    kind: MetricKind::Counter,
    help: "Entries removed from the connection tracking tables of all network namespaces.",
    labels: &["protocol"],
};

const ENTRIES: MetricDef = MetricDef {
    name: "nodemedic_conntrack_entries",
    kind: MetricKind::Gauge,
    help: "Entries in the connection tracking table, by network namespace.",
    labels: &["netns"],
};

const NETNS_INFO: MetricDef = MetricDef {
    name: "nodemedic_conntrack_netns_info",
    kind: MetricKind::Gauge,
    help: "Always 1: the pod of Kubernetes that has a network namespace for itself. The labels are \
           empty where it is of none that is known. Beside these, label_*: the labels of the pod \
           that node.pod_labels names.",
    labels: &["netns", "namespace", "pod"],
};

const LIMIT: MetricDef = MetricDef {
    name: "nodemedic_conntrack_entries_limit",
    kind: MetricKind::Gauge,
    help: "nf_conntrack_max, which holds for each network namespace by itself; 0 means no limit.",
    labels: &[],
};

const DROPS: MetricDef = MetricDef {
    name: "nodemedic_conntrack_drops_total",
    kind: MetricKind::Counter,
    help: "Packets dropped without an entry or in a clash (drop), entries pushed out of a full \
           table (early_drop) and packets whose entry lost a clash (insert_failed, part of drop), \
           in the agent's network namespace since boot.",
    labels: &["reason"],
};

const SECONDS_TO_FULL: MetricDef = MetricDef {
    name: "nodemedic_conntrack_seconds_to_full",
    kind: MetricKind::Gauge,
    help: "Time until the first network namespace's table is full if it goes on growing as in \
           the last minute; +Inf while none grows.",
    labels: &[],
};

/// The reading as series.
pub(super) fn samples(reading: &Reading) -> Vec<Sample> {
    let mut samples = vec![Sample::plain(
        &SECONDS_TO_FULL,
        seconds_to_full(reading).unwrap_or(f64::INFINITY),
    )];
    samples.extend(
        reading
            .limit
            .map(|limit| Sample::plain(&LIMIT, limit as f64)),
    );
    samples.extend(entries(reading));
    let drops = [
        ("drop", reading.drops.drop),
        ("early_drop", reading.drops.early_drop),
        ("insert_failed", reading.drops.insert_failed),
    ];
    samples.extend(known(&DROPS, drops));
    let timeouts = [
        ("unreplied", reading.timeouts.unreplied),
        ("stream", reading.timeouts.stream),
    ];
    samples.extend(known(&TIMEOUT, timeouts));
    samples.extend(walk(reading));
    samples.extend(reading.probed.iter().flat_map(probed));
    // The last are what the cap on series takes first.
    let shown = reading.probed.iter().flat_map(|it| &it.shown);
    let sources = shown.map(|flow| flow.source);
    samples.extend(reading.neighbours.address_infos(&SOURCE_INFO, sources));
    let shown = shown_namespaces(reading).0.into_iter();
    let namespaces = shown
        .map(|namespace| namespace.netns)
        .chain([reading.netns]);
    samples.extend(reading.neighbours.netns_infos(&NETNS_INFO, namespaces));
    samples
}

fn known<const N: usize>(
    metric: &'static MetricDef,
    values: [(&'static str, Option<u64>); N],
) -> impl Iterator<Item = Sample> {
    values
        .into_iter()
        .filter_map(move |(label, value)| Some(Sample::number(metric, [label], value? as f64)))
}

/// Namespaces beside ours that are shown one by one, and the entries of all others, if there
/// are any.
fn shown_namespaces(reading: &Reading) -> (Vec<&Namespace>, Option<u64>) {
    let mut others: Vec<_> = reading
        .namespaces
        .iter()
        .map(|(namespace, _)| namespace)
        .collect();
    others.sort_by_key(|namespace| std::cmp::Reverse(namespace.entries));
    let rest = others.split_off(others.len().min(MAX_NAMESPACES));
    let entries = rest.iter().map(|namespace| namespace.entries).sum();
    (others, (!rest.is_empty()).then_some(entries))
}

fn entries(reading: &Reading) -> Vec<Sample> {
    let (others, rest) = shown_namespaces(reading);
    let own = (reading.netns.to_string(), reading.entries);
    let rest = rest.map(|rest| ("other".to_owned(), rest));
    [own]
        .into_iter()
        .chain(
            others
                .iter()
                .map(|other| (other.netns.to_string(), other.entries)),
        )
        .chain(rest)
        .map(|(netns, entries)| Sample::number(&ENTRIES, [netns], entries as f64))
        .collect()
}

fn walk(reading: &Reading) -> Vec<Sample> {
    let Some(snapshot) = &reading.snapshot else {
        return Vec::new();
    };
    let mut samples = vec![Sample::plain(&WALK_SECONDS, snapshot.seconds)];
    samples.extend(
        reading
            .snapshot_unix_seconds
            .map(|at| Sample::plain(&WALK_TIMESTAMP, at)),
    );
    if snapshot.complete {
        let states = [
            (State::Unreplied, snapshot.udp.unreplied),
            (State::Replied, snapshot.udp.replied),
            (State::Assured, snapshot.udp.assured),
        ];
        samples.extend(
            states.map(|(state, entries)| {
                Sample::number(&UDP_ENTRIES, [state.name()], entries as f64)
            }),
        );
    }
    samples
}

fn probed(probed: &ProbedReading) -> Vec<Sample> {
    let total = &probed.total;
    let mut samples: Vec<_> = probed
        .shown
        .iter()
        .map(|flow| {
            let labels = [
                flow.netns.to_string(),
                port(flow.port),
                flow.source.to_string(),
            ];
            Sample::number(&CREATED, labels, flow.created as f64)
        })
        .collect();
    samples.push(Sample::number(
        &CREATED,
        ["other"; 3],
        probed.other_created as f64,
    ));
    let created = [("udp", total.created), ("other", total.created_other)];
    samples.extend(created.map(|(protocol, entries)| {
        Sample::number(&CREATED_BY_PROTOCOL, [protocol], entries as f64)
    }));
    if probed.removals {
        samples.extend(removals(probed));
    }
    samples
}

fn removals(probed: &ProbedReading) -> Vec<Sample> {
    let total = &probed.total;
    let removed = [
        ("udp", total.removed_total()),
        ("other", total.removed_other),
    ];
    let mut samples: Vec<_> = removed
        .map(|(protocol, entries)| Sample::number(&REMOVED_BY_PROTOCOL, [protocol], entries as f64))
        .into();
    for (end, states) in End::ALL.into_iter().zip(&total.removed) {
        samples.extend(State::ALL.into_iter().zip(states).map(|(state, removed)| {
            Sample::number(&REMOVED, [end.name(), state.name()], *removed as f64)
        }));
    }
    samples.extend(
        total
            .wasted_seconds
            .map(|seconds| Sample::plain(&WASTED, seconds)),
    );
    samples.push(Sample::plain(
        &LIFETIME,
        MetricValue::of_durations(&total.lifetimes, LIFETIME_UNIT_NS, total.lifetime_seconds),
    ));
    samples
}

fn port(port: u16) -> String {
    if port == 0 {
        "ephemeral".to_owned()
    } else {
        port.to_string()
    }
}
