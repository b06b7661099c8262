//! The ailment's metrics: the only definition of each, and how a reading fills them.

use ebpf::udp_conntrack::{End, LIFETIME_UNIT_NS, State};

use super::{Reading, judge::seconds_to_full, measure::ProbedReading};
use crate::{
    kernel::conntrack::Namespace,
    model::{MetricDef, MetricValue, Sample, metrics},
};

/// Namespaces whose entries are shown one by one; the rest is `other`.
const MAX_NAMESPACES: usize = 100;

metrics! {
    pub(super) ALL:
    /// UDP entries created in the conntrack table, by network namespace, destination port
    /// (ephemeral: 32768 and above) and source address.
    CREATED: Counter = "nodemedic_udp_conntrack_created_total" ["netns", "port", "source"];
    // Apart from the counter: its series must not change when a name becomes known.
    /// Always 1; the Kubernetes pod that owns a source address. Labels without a value are empty.
    /// Further labels, label_*: the labels of the pod that node.pod_labels names.
    SOURCE_INFO: Gauge = "nodemedic_udp_conntrack_source_info" ["source", "namespace", "pod"];
    /// UDP entries removed, by the reason and by the state of their flow.
    REMOVED: Counter = "nodemedic_udp_conntrack_removed_total" ["reason", "state"];
    /// UDP entries in the table of the agent's network namespace at the last scan, by the state of
    /// their flow.
    UDP_ENTRIES: Gauge = "nodemedic_udp_conntrack_entries" ["state"];
    /// Time from the creation of a UDP entry to its removal.
    LIFETIME: Histogram = "nodemedic_udp_conntrack_lifetime_seconds" [];
    /// Time that removed UDP entries were idle: from the last packet of a flow that never became a
    /// stream to the removal. The rate is the number of idle entries.
    WASTED: Counter = "nodemedic_udp_conntrack_wasted_entry_seconds_total" [];
    /// Current timeouts: nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream.
    TIMEOUT: Gauge = "nodemedic_udp_conntrack_timeout_seconds" ["timeout"];
    /// Duration of the last scan of the table through ctnetlink.
    SCAN_SECONDS: Gauge = "nodemedic_udp_conntrack_scan_seconds" [];
    /// Time of the last scan of the table through ctnetlink, in seconds since the epoch.
    SCAN_TIMESTAMP: Gauge = "nodemedic_udp_conntrack_scan_timestamp_seconds" [];
    /// Entries created in the conntrack tables of all network namespaces.
    CREATED_BY_PROTOCOL: Counter = "nodemedic_conntrack_created_total" ["protocol"];
    /// Entries removed from the conntrack tables of all network namespaces.
    REMOVED_BY_PROTOCOL: Counter = "nodemedic_conntrack_removed_total" ["protocol"];
    /// Entries in the conntrack table, by network namespace.
    ENTRIES: Gauge = "nodemedic_conntrack_entries" ["netns"];
    /// Always 1; the Kubernetes pod that owns a network namespace. Labels without a value are
    /// empty. Further labels, label_*: the labels of the pod that node.pod_labels names.
    NETNS_INFO: Gauge = "nodemedic_conntrack_netns_info" ["netns", "namespace", "pod"];
    /// nf_conntrack_max, which limits each network namespace separately; 0: no limit.
    LIMIT: Gauge = "nodemedic_conntrack_entries_limit" [];
    /// nf_conntrack_buckets: hash chains of the table, which all network namespaces share.
    BUCKETS: Gauge = "nodemedic_conntrack_buckets" [];
    /// Counters of the kernel for the agent's network namespace since boot, named as conntrack -S
    /// names them. drop: packets dropped without an entry, or in a clash. early_drop: entries
    /// evicted from a full table. insert_failed: entries lost in a clash, part of drop, or for the
    /// length of their chain. chaintoolong: the latter. clash_resolve: clashes that lost no packet.
    /// invalid: packets that fit no connection.
    DROPS: Counter = "nodemedic_conntrack_drops_total" ["reason"];
    /// New connections of all network namespaces that their tables refused since the agent started.
    /// table_full: no room, and nothing to evict. not_inserted: a hash chain was too long, or the
    /// entry was deleted meanwhile. clash_lost: dropped for an equal entry. clash_resolved: went on
    /// in spite of an equal entry.
    REFUSED: Counter = "nodemedic_conntrack_refused_total" ["reason"];
    /// Time until the first table of a network namespace is full at the growth of the last minute;
    /// +Inf while none grows.
    SECONDS_TO_FULL: Gauge = "nodemedic_conntrack_seconds_to_full" [];
}

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
    let buckets = reading.buckets;
    samples.extend(buckets.map(|buckets| Sample::plain(&BUCKETS, buckets as f64)));
    samples.extend(entries(reading));
    let drops = [
        ("drop", reading.drops.drop),
        ("early_drop", reading.drops.early_drop),
        ("insert_failed", reading.drops.insert_failed),
        ("chaintoolong", reading.drops.chain_too_long),
        ("clash_resolve", reading.drops.clash_resolved),
        ("invalid", reading.drops.invalid),
    ];
    samples.extend(known(&DROPS, drops));
    let timeouts = [
        ("unreplied", reading.timeouts.unreplied),
        ("stream", reading.timeouts.stream),
    ];
    samples.extend(known(&TIMEOUT, timeouts));
    samples.extend(scan(reading));
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

fn scan(reading: &Reading) -> Vec<Sample> {
    let Some(snapshot) = &reading.snapshot else {
        return Vec::new();
    };
    let mut samples = vec![Sample::plain(&SCAN_SECONDS, snapshot.seconds)];
    samples.extend(
        reading
            .snapshot_unix_seconds
            .map(|at| Sample::plain(&SCAN_TIMESTAMP, at)),
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
    samples.extend(known(&REFUSED, probed.refused.total.by_name()));
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
