//! What a person can do against it, beside the treatments.
//!
//! What IPVS does with a SYN depends on three things (ip_vs_core.c): the settings, the destination
//! of the old connection, and whether the packet belongs to a conntrack entry that the kernel keeps.
//! The last is what makes clients wait, and no setting of IPVS changes it for the better.

use ebpf::ipvs_conn_reuse::{Outcome, Reason};

use super::measure::{ProbedReading, Reading, SHORT_CLOSE_TIMEOUT, UdpDestination, VsSettings};

/// Advice on SYNs that are dropped once, safest first.
pub(super) fn delayed(reading: &Reading, probed: &ProbedReading) -> Vec<String> {
    let settings = settings(reading, probed, Outcome::Dropped);
    let mut advice = Vec::new();
    if probed.drops_every_reuse() {
        advice.push(
            "use a kernel that lets a SYN reopen a finished conntrack entry (Linux 5.9, or a \
             stable kernel that has \"ipvs: allow connection reuse for unconfirmed conntrack\"): \
             this one drops the first SYN on every reused port"
                .to_owned(),
        );
        advice.push(trade(&settings));
    } else {
        let half_closed = against_half_closed(probed);
        let close_can_fall = reading.close_timeout > Some(SHORT_CLOSE_TIMEOUT);
        if half_closed.is_none() && !(close_can_fall && probed.may_be_reset()) {
            advice.push(none_is_safe(probed));
        }
        advice.extend(half_closed);
        if reading.has_ctnetlink == Some(false) && reading.sweep.namespaces.is_empty() {
            advice.push(
                "modprobe nf_conntrack_netlink: the treatment sweep_dead needs it to mark the \
                 conntrack entries of dead connections reusable"
                    .to_owned(),
            );
        }
        if settings.conn_reuse_mode != Some(0) {
            advice.push(
                "do not set net.ipv4.vs.conn_reuse_mode=0: it would send these SYNs to the old \
                 destinations, an outage instead of a delay where those are gone"
                    .to_owned(),
            );
        }
    }
    advice.push(
        "let clients keep their connections open, or use more source ports: a port that is unused \
         for two minutes meets no old connection"
            .to_owned(),
    );
    advice.extend(kube_proxy(&settings));
    advice
}

/// Advice on SYNs that are sent to drained destinations.
pub(super) fn misdirected(reading: &Reading) -> Vec<String> {
    let settings = of_namespaces(reading);
    let mode = (settings.conn_reuse_mode == Some(0)).then(|| {
        "sysctl -w net.ipv4.vs.conn_reuse_mode=1: IPVS schedules a SYN that meets a finished \
         connection to a new destination; costs: on kernels before 5.9 without the fix, a second \
         for each; undo: sysctl -w net.ipv4.vs.conn_reuse_mode=0"
            .to_owned()
    });
    mode.into_iter().chain(kube_proxy(&settings)).collect()
}

/// Advice on SYNs that are dropped for as long as the old connection lives.
pub(super) fn blackholed(reading: &Reading) -> Vec<String> {
    kube_proxy(&of_namespaces(reading)).into_iter().collect()
}

/// Advice on UDP datagrams that are dropped, as their destination is removed.
pub(super) fn udp_blackholed(reading: &Reading) -> Vec<String> {
    let removed = reading.udp.destinations.iter();
    let removed = removed.filter(|it| !it.state.is_drained());
    let expires = removed.map(|it| it.expires_seconds).max();
    let end = expires.map_or_else(String::new, |expires| format!(", in at most {expires} s"));
    vec![
        "if the removed server still runs, add it to its service again: its flows go on at once"
            .to_owned(),
        format!(
            "conntrack -D, ipvsadm --set and a new service do not help: IPVS keeps such a flow \
             until its own timer ends{end}"
        ),
    ]
}

/// Advice on UDP flows that stay on a drained destination: no setting ends them.
pub(super) fn udp_drained(reading: &Reading, destination: &UdpDestination) -> Vec<String> {
    let UdpDestination {
        netns,
        service,
        destination,
        ..
    } = destination;
    let namespace = reading.namespaces.iter().find(|it| it.netns == *netns);
    let enter = reading
        .process_in(*netns)
        .map_or_else(String::new, |pid| format!("nsenter -t {pid} -n "));
    let set = match namespace.and_then(|it| it.settings.expire_nodest_conn) {
        Some(1) => String::new(),
        Some(_) | None => format!("{enter}sysctl -w net.ipv4.vs.expire_nodest_conn=1 && "),
    };
    vec![
        format!(
            "{set}{enter}ipvsadm -d -u {service} -r {destination}: IPVS removes the drained \
             server and sends the next datagram of each flow to another; costs: requests that the \
             drained server still works on get no answer; undo: {enter}ipvsadm -a -u {service} -r \
             {destination} -w 0, with its forwarding method"
        ),
        "no sysctl ends such a flow: IPVS sends it to the drained server for as long as its \
         datagrams come faster than the UDP timeout of IPVS (ipvsadm -L --timeout)"
            .to_owned(),
        "let the clients send from new source ports: restart them, or limit how long they keep a \
         socket"
            .to_owned(),
    ]
}

/// IPVS is in TIME_WAIT, conntrack is not: the last acknowledgement was lost.
fn against_half_closed(probed: &ProbedReading) -> Option<String> {
    (probed.recent.of(Outcome::Dropped, Reason::TimeWait) > 0).then(|| {
        "lower net.netfilter.nf_conntrack_tcp_timeout_last_ack (30 s) and \
         nf_conntrack_tcp_timeout_close_wait (60 s): the last acknowledgement of these \
         connections was lost, and their conntrack entries wait for it; costs: connections that \
         are slow to close lose their translation; undo: set the old values"
            .to_owned()
    })
}

fn none_is_safe(probed: &ProbedReading) -> String {
    let drained = probed.recent.of(Outcome::Dropped, Reason::WeightZero);
    if drained > 0 {
        "every setting that removes this delay sends clients to drained destinations \
         (expire_nodest_conn=0): an outage instead of a second"
            .to_owned()
    } else {
        "no setting removes this delay".to_owned()
    }
}

/// What kube-proxy sets itself on kernels that it takes for unfixed.
fn trade(settings: &VsSettings) -> String {
    match settings.conn_reuse_mode {
        Some(0) => {
            "conn_reuse_mode is 0 already; only SYNs to drained destinations are still affected"
                .to_owned()
        }
        _ => "sysctl -w net.ipv4.vs.conn_reuse_mode=0: no SYN waits, but each goes to the \
              destination of its old connection; costs: an outage instead of a delay where that \
              is drained or gone; undo: sysctl -w net.ipv4.vs.conn_reuse_mode=1"
            .to_owned(),
    }
}

fn kube_proxy(settings: &VsSettings) -> Option<String> {
    settings.are_of_kube_proxy().then(|| {
        "these are the settings of kube-proxy in mode ipvs: it sets expire_nodest_conn, conntrack \
         and expire_quiescent_template at each start, so manual changes do not last"
            .to_owned()
    })
}

/// The settings in force where most SYNs with this outcome came.
fn settings(reading: &Reading, probed: &ProbedReading, outcome: Outcome) -> VsSettings {
    let concerned = probed.top_services.iter();
    concerned
        .max_by_key(|service| service.syns.of(outcome))
        .map_or_else(|| of_namespaces(reading), |service| service.settings)
}

fn of_namespaces(reading: &Reading) -> VsSettings {
    let most = reading.namespaces.iter();
    most.max_by_key(|namespace| namespace.scan.services)
        .map(|namespace| namespace.settings)
        .unwrap_or_default()
}
