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
    /// TCP SYNs that met an IPVS connection of the same client address and port, by what became of
    /// them and what of that connection decided it.
    SYNS: Counter = "nodemedic_ipvs_conn_reuse_syns_total" ["outcome", "reason"];
    /// Time from the first dropped SYN of a client's port to its new connection.
    DELAY: Histogram = "nodemedic_ipvs_conn_reuse_delay_seconds" [];
    /// Clients' ports whose SYN was dropped and that had no connection when they were taken to have
    /// given up (give_up_after).
    NEVER_CONNECTED: Counter = "nodemedic_ipvs_conn_reuse_gave_up_total" [];
    /// Clients' ports whose SYN was dropped and that have no new connection yet.
    WAITING: Gauge = "nodemedic_ipvs_conn_reuse_waiting" [];
    /// The same SYNs by network namespace, virtual service and the destination of the connection
    /// that they met.
    SERVICE_SYNS: Counter = "nodemedic_ipvs_conn_reuse_service_syns_total"
        ["netns", "service", "old_destination", "outcome"];
    /// The same SYNs by network namespace of the service and address of the client.
    CLIENT_SYNS: Counter = "nodemedic_ipvs_conn_reuse_client_syns_total"
        ["netns", "client", "outcome"];
    // Apart from the counter, whose series must not change when a name is found out.
    /// Always 1: the pod of Kubernetes that has a client's address for itself. The labels are empty
    /// where it is of none that is known. Beside these, label_*: the labels of the pod that
    /// node.pod_labels names.
    CLIENT_INFO: Gauge = "nodemedic_ipvs_conn_reuse_client_info" ["client", "namespace", "pod"];
    /// Destinations of weight 0 in all network namespaces.
    DRAINED: Gauge = "nodemedic_ipvs_conn_reuse_drained_destinations" [];
    /// Sysctls net.ipv4.vs.* in force that decide about such SYNs, by network namespace with
    /// services.
    SETTING: Gauge = "nodemedic_ipvs_conn_reuse_setting" ["netns", "setting"];
    /// 1 while every packet of IPVS is looked at, as some connections may be kept that lead to
    /// destinations drained or gone; 0 else.
    WATCHING: Gauge = "nodemedic_ipvs_conn_reuse_tracing_active" [];
    /// Conntrack entries of dead connections that the treatment sweep_dead has opened for the next
    /// SYN, by why the connection was dead.
    SWEPT: Counter = "nodemedic_ipvs_conn_reuse_swept_total" ["reason"];
    /// How often the treatment sweep_dead left something undone: entries beyond the rate
    /// (sweep_rate), a pass with more connections than are looked at (sweep_connections), events
    /// that the kernel had no room for, errors.
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
    let mut samples = vec![
        Sample::plain(&WAITING, probed.waiting as f64),
        Sample::plain(&NEVER_CONNECTED, total.never_connected as f64),
        Sample::plain(&WATCHING, f64::from(u8::from(probed.watching))),
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
