//! The ailment's metrics: the only definition of each, and how a reading fills them.

use ebpf::ipvs_conn_reuse::{DELAY_UNIT_NS, Outcome, Reason};

use super::{
    Reading,
    measure::{ProbedReading, Syns},
};

use crate::model::{MetricDef, MetricValue, Sample, metrics};

/// Namespaces whose settings are shown.
const MAX_NAMESPACES: usize = 20;

metrics! {
    pub(super) ALL:
    /// TCP SYNs that met an IPVS connection of the same client address and port, by outcome and
    /// cause.
    SYNS: Counter = "nodemedic_ipvs_conn_reuse_syns_total" ["outcome", "reason"];
    /// Time from the first dropped SYN of a client port to its new connection.
    DELAY: Histogram = "nodemedic_ipvs_conn_reuse_delay_seconds" [];
    /// Client ports with a dropped SYN and no connection within give_up_after.
    NEVER_CONNECTED: Counter = "nodemedic_ipvs_conn_reuse_gave_up_total" [];
    /// Client ports with a dropped SYN and no new connection yet.
    WAITING: Gauge = "nodemedic_ipvs_conn_reuse_waiting" [];
    /// The SYNs of nodemedic_ipvs_conn_reuse_syns_total, by network namespace, virtual service and
    /// destination of the old connection.
    SERVICE_SYNS: Counter = "nodemedic_ipvs_conn_reuse_service_syns_total"
        ["netns", "service", "old_destination", "outcome"];
    /// The SYNs of nodemedic_ipvs_conn_reuse_syns_total, by network namespace of the service and
    /// address of the client.
    CLIENT_SYNS: Counter = "nodemedic_ipvs_conn_reuse_client_syns_total"
        ["netns", "client", "outcome"];
    // Apart from the counter: its series must not change when a name becomes known.
    /// Always 1; the Kubernetes pod that owns a client address. Labels without a value are empty.
    /// Further labels, label_*: the labels of the pod that node.pod_labels names.
    CLIENT_INFO: Gauge = "nodemedic_ipvs_conn_reuse_client_info" ["client", "namespace", "pod"];
    /// Destinations with weight 0 in all network namespaces.
    DRAINED: Gauge = "nodemedic_ipvs_conn_reuse_drained_destinations" [];
    /// Current sysctls net.ipv4.vs.* that decide about such SYNs, by network namespace with
    /// services.
    SETTING: Gauge = "nodemedic_ipvs_conn_reuse_setting" ["netns", "setting"];
    /// 1 while a probe runs for every packet of IPVS, or for every UDP datagram, else 0. Such probes
    /// run only while connections or flows may lead to drained or removed destinations.
    TRACING_ACTIVE: Gauge = "nodemedic_ipvs_conn_reuse_tracing_active" [];
    /// UDP flows that IPVS keeps on drained or removed destinations, by whether clients use them:
    /// in_use, idle or unknown.
    UDP_FLOWS: Gauge = "nodemedic_ipvs_conn_reuse_udp_flows" ["destination", "use"];
    /// UDP datagrams that IPVS dropped because the destination of their flow is removed.
    UDP_DROPPED: Counter = "nodemedic_ipvs_conn_reuse_udp_dropped_total" [];
    /// Conntrack entries that the treatment sweep_dead marked reusable for the next SYN, by the
    /// reason why the connection is dead.
    SWEPT: Counter = "nodemedic_ipvs_conn_reuse_swept_total" ["reason"];
    /// Work that the treatment sweep_dead skipped: entries beyond sweep_rate, passes beyond
    /// sweep_connections, events that the kernel had no room for, errors.
    SWEEP_LEFT: Counter = "nodemedic_ipvs_conn_reuse_sweep_skipped_total" ["reason"];
}

/// The reading as series.
pub(super) fn samples(reading: &Reading) -> Vec<Sample> {
    let drained: u64 = reading
        .namespaces
        .iter()
        .map(|namespace| namespace.scan.drained)
        .sum();
    let mut samples = vec![Sample::plain(&DRAINED, drained as f64)];
    for namespace in reading.namespaces.iter().take(MAX_NAMESPACES) {
        let netns = namespace.netns.to_string();
        let known = namespace.settings.named().into_iter();
        samples.extend(known.filter_map(|(setting, value)| {
            let labels = [netns.as_str(), setting];
            Some(Sample::number(&SETTING, labels, value? as f64))
        }));
    }
    for (destination, flows) in reading.udp_flows() {
        let uses = [
            ("in_use", flows.in_use),
            ("idle", flows.idle),
            ("unknown", flows.unknown),
        ];
        samples.extend(
            uses.map(|(name, flows)| Sample::number(&UDP_FLOWS, [destination, name], flows as f64)),
        );
    }
    for (metric, counts) in [
        (&SWEPT, &reading.sweep.swept),
        (&SWEEP_LEFT, &reading.sweep.left),
    ] {
        let counts = counts.iter();
        samples.extend(
            counts.map(|(reason, count)| Sample::number(metric, [reason.as_str()], *count as f64)),
        );
    }
    samples.extend(reading.probed.iter().flat_map(probed));
    let shown = reading.probed.iter().flat_map(|it| &it.clients);
    let clients = shown.map(|it| it.client);
    samples.extend(reading.neighbours.address_infos(&CLIENT_INFO, clients));
    samples
}

fn probed(probed: &ProbedReading) -> Vec<Sample> {
    let total = &probed.total;
    let tracing = probed.tracing || probed.tracing_answers;
    let mut samples = vec![
        Sample::plain(&WAITING, probed.waiting as f64),
        Sample::plain(&NEVER_CONNECTED, total.never_connected as f64),
        Sample::plain(&TRACING_ACTIVE, f64::from(u8::from(tracing))),
        Sample::plain(&UDP_DROPPED, probed.dropped.total as f64),
        Sample::plain(
            &DELAY,
            MetricValue::of_durations(&total.delays, DELAY_UNIT_NS, total.delay_seconds),
        ),
    ];
    for outcome in Outcome::ALL {
        samples.extend(Reason::ALL.map(|reason| {
            let labels = [outcome.name(), reason.name()];
            Sample::number(&SYNS, labels, total.of(outcome, reason) as f64)
        }));
    }
    for service in &probed.services {
        let names = [
            service.netns.to_string(),
            service.service.to_string(),
            service.old_destination.to_string(),
        ];
        samples.extend(by_outcome(&SERVICE_SYNS, &names, &service.syns, false));
    }
    let other = ["other", "other", "other"].map(str::to_owned);
    samples.extend(by_outcome(
        &SERVICE_SYNS,
        &other,
        &probed.other_services,
        true,
    ));
    for client in &probed.clients {
        let names = [client.netns.to_string(), client.client.to_string()];
        samples.extend(by_outcome(&CLIENT_SYNS, &names, &client.syns, false));
    }
    samples.extend(by_outcome(
        &CLIENT_SYNS,
        &other[..2],
        &probed.other_clients,
        true,
    ));
    samples
}

/// A series for each outcome; for those that were never seen too, where it is known
/// from the start that the series will be there.
fn by_outcome(
    metric: &'static MetricDef,
    names: &[String],
    syns: &Syns,
    with_zeros: bool,
) -> impl Iterator<Item = Sample> {
    let counts = syns.by_outcome().into_iter();
    counts
        .filter(move |(_, count)| with_zeros || *count > 0)
        .map(move |(outcome, count)| {
            let labels = names.iter().cloned().chain([outcome.name().to_owned()]);
            Sample::number(metric, labels, count as f64)
        })
}
