//! What can be done against it: what each change does on this kernel and in this
//! configuration, what it costs, how it is undone.
//!
//! What IPVS does with a SYN depends on three things (ip_vs_core.c): the settings, the
//! destination of the old connection, and whether the packet belongs to a conntrack
//! entry that the kernel keeps. The last is what makes clients wait, and no setting of
//! IPVS changes it for the better.

use ebpf::ipvs_conn_reuse::{Outcome, Reason};

use super::{
    SWEEP_DEAD,
    judge::{BLACKHOLED, DELAYED, DRAINED_EXPOSED, MISDIRECTED},
    measure::{NamespaceReading, ProbedReading, Reading, VsSettings},
};
use crate::{
    kernel::conntrack::NETLINK_IS_MISSING,
    model::{Bound, Change, Proposal, Treatment},
};

/// A shorter stay of reset connections in conntrack (default 10 s).
const CLOSE_TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close";
const SHORT_CLOSE_TIMEOUT: u64 = 1;
const EXPIRE_NODEST_CONN: &str = "net.ipv4.vs.expire_nodest_conn";

/// Why nothing that is done to conntrack entries helps.
const DROPS_EVERY_REUSE: &str =
    "this kernel drops the first SYN on every reused port, whatever becomes of the entry";

/// With fewer drops than this of one kind nothing is said of the kernel.
const ENOUGH_TO_TELL: u64 = 3;

/// Safest first. `conn_reuse_mode` is not among them: 0 trades a delay for an outage, and
/// what 1 does depends on the kernel's fixes, so that is left to people.
pub(super) const TREATMENTS: &[&Treatment] = &[&CLOSE, &SWEEP, &EXPIRE_NODEST];

static CLOSE: Treatment = Treatment {
    name: "tcp_timeout_close",
    effect: "the conntrack entry of a reset connection goes before the client comes back, and the \
             SYN is scheduled at once",
    cost: "packets of the reset connection that come later meet no entry and are not translated",
    acts: "on connections that are reset from then on; one that was reset before keeps its entry \
           for up to 10 s",
    applies: "where SYNs on the ports of connections that the server had reset are dropped, on a \
              kernel that lets a SYN reopen a finished entry (Linux 5.9 and later, and fixed \
              stable ones; told by behaviour)",
    keys: &[Bound {
        key: CLOSE_TIMEOUT,
        allowed: SHORT_CLOSE_TIMEOUT..=SHORT_CLOSE_TIMEOUT,
    }],
    durable: "set net.netfilter.nf_conntrack_tcp_timeout_close=1 in a file of /etc/sysctl.d, and \
              load nf_conntrack before systemd-sysctl runs (a file of /etc/modules-load.d)",
};

static SWEEP: Treatment = Treatment {
    name: "sweep_dead",
    effect: "the agent finds connections of IPVS that are dead, and opens their conntrack entries \
             for the next SYN, which is then scheduled at once. Dead are those that were reset, \
             those that both sides have closed, and those of a drained server that has closed \
             them and whose client does not answer for 3 s",
    cost: "the agent goes through IPVS's connections once a second, for at most two percent of one \
           CPU, and the kernel tells it of connections that change their state, a few \
           microseconds for each. No entry is removed, so late packets are still translated",
    acts: "within milliseconds after a reset, where conntrack has events of its entries (with \
           nf_conntrack_events at 2, those made since), else within a second or two. Connections \
           that may be alive are left as they are",
    applies: "where SYNs are dropped once, on a kernel that lets a SYN reopen a finished entry \
              (Linux 5.9 and later, and fixed stable ones; told by behaviour), while the module \
              nf_conntrack_netlink is loaded; in each network namespace with services and \
              vs.conntrack=1",
    keys: &[Bound {
        key: SWEEP_DEAD.key,
        allowed: 1..=1,
    }],
    durable: "it is the agent itself that does this, so it lasts with sweep_dead = \"auto\" in \
              [treatments], and nf_conntrack_netlink in a file of /etc/modules-load.d",
};

static EXPIRE_NODEST: Treatment = Treatment {
    name: "expire_nodest_conn",
    effect: "IPVS lets go of connections whose destination is drained or gone when a packet of \
             theirs comes, and schedules a SYN anew",
    cost: "connections to destinations that were removed end at their next packet instead of \
           timing out; a SYN whose old conntrack entry still stands is dropped once, and its \
           client waits a second",
    acts: "with the next packet of a connection",
    applies: "where it is 0 and SYNs are dropped silently or sent to drained destinations, in each \
              network namespace with services",
    keys: &[Bound {
        key: EXPIRE_NODEST_CONN,
        allowed: 1..=1,
    }],
    durable: "kube-proxy sets net.ipv4.vs.expire_nodest_conn=1 at each start; without it, set it \
              in a file of /etc/sysctl.d, and load ip_vs before systemd-sysctl runs (a file of \
              /etc/modules-load.d)",
};

/// What each treatment would be now.
pub(super) fn proposals(reading: &Reading) -> Vec<Proposal> {
    vec![shorter_close(reading), sweep(reading), let_go(reading)]
}

fn shorter_close(reading: &Reading) -> Proposal {
    let now = reading.close_timeout.zip(reading.netns);
    let change = now.and_then(|(now, netns)| {
        (now > SHORT_CLOSE_TIMEOUT)
            .then(|| Change::new(CLOSE_TIMEOUT, netns, now, SHORT_CLOSE_TIMEOUT))
    });
    let objection = match &reading.probed {
        Some(probed) if drops_every_reuse(probed) => Some(DROPS_EVERY_REUSE),
        Some(probed) if against_resets(reading, probed).is_none() => {
            Some("no SYN was dropped for a connection that its server had reset")
        }
        Some(_) | None => None,
    };
    Proposal {
        objection: objection.map(str::to_owned),
        ..Proposal::new(&CLOSE, &[DELAYED], change)
    }
}

fn sweep(reading: &Reading) -> Proposal {
    let is_wanted = |namespace: &&NamespaceReading| {
        namespace.settings.conntrack == Some(1)
            && !reading.sweep.namespaces.contains(&namespace.netns)
    };
    let namespaces = reading.namespaces.iter().filter(is_wanted);
    let changes = namespaces.map(|it| Change::new(SWEEP_DEAD.key, it.netns, 0, 1));
    let objection = if reading.probed.as_ref().is_some_and(drops_every_reuse) {
        Some(DROPS_EVERY_REUSE)
    } else if reading.has_ctnetlink == Some(false) {
        Some(NETLINK_IS_MISSING)
    } else {
        None
    };
    Proposal {
        objection: objection.map(str::to_owned),
        ..Proposal::new(&SWEEP, &[DELAYED], changes)
    }
}

fn let_go(reading: &Reading) -> Proposal {
    let changes = reading
        .namespaces
        .iter()
        .filter(|namespace| namespace.settings.expire_nodest_conn == Some(0))
        .map(|namespace| Change::new(EXPIRE_NODEST_CONN, namespace.netns, 0, 1));
    Proposal::new(
        &EXPIRE_NODEST,
        &[BLACKHOLED, MISDIRECTED, DRAINED_EXPOSED],
        changes,
    )
}

/// Remedies for SYNs that are dropped once, safest first.
pub(super) fn delayed(reading: &Reading, probed: &ProbedReading) -> Vec<String> {
    let settings = settings(reading, probed, Outcome::Dropped);
    let mut remedies = Vec::new();
    if drops_every_reuse(probed) {
        remedies.push(
            "use a kernel that lets a SYN reopen a finished conntrack entry (Linux 5.9, or a \
             stable kernel that has \"ipvs: allow connection reuse for unconfirmed conntrack\"): \
             this one drops the first SYN on every reused port"
                .to_owned(),
        );
        remedies.push(trade(&settings));
    } else {
        remedies.extend(against_resets(reading, probed));
        remedies.extend(against_half_closed(probed));
        let settings_help = !remedies.is_empty();
        remedies.extend(by_sweeping(reading));
        if !settings_help {
            remedies.push(none_is_safe(probed));
        }
        if settings.conn_reuse_mode != Some(0) {
            remedies.push(
                "do not set net.ipv4.vs.conn_reuse_mode=0: it would send these SYNs to the old \
                 destinations, an outage instead of a delay where those are gone"
                    .to_owned(),
            );
        }
    }
    remedies.push(
        "let clients keep their connections open, or use more source ports: a port that does not \
         come back within two minutes meets no old connection"
            .to_owned(),
    );
    remedies.extend(kube_proxy(&settings));
    remedies
}

/// Remedies for SYNs that are sent to drained destinations.
pub(super) fn misdirected(reading: &Reading) -> Vec<String> {
    let settings = of_namespaces(reading);
    let mut remedies = vec![expire_nodest_conn(
        "a SYN on the port of an old connection to a drained destination is scheduled anew; where \
         the old connection's conntrack entry still stands, that SYN is dropped first, and the \
         client waits for a second",
    )];
    if settings.conn_reuse_mode == Some(0) {
        remedies.push(
            "sysctl -w net.ipv4.vs.conn_reuse_mode=1: a SYN that meets a finished connection is \
             scheduled anew; costs: on kernels before 5.9 without the fix, a second for each; \
             undo: sysctl -w net.ipv4.vs.conn_reuse_mode=0"
                .to_owned(),
        );
    }
    remedies.extend(kube_proxy(&settings));
    remedies
}

/// Remedies for SYNs that are dropped for as long as the old connection lives.
pub(super) fn blackholed(reading: &Reading) -> Vec<String> {
    let mut remedies = vec![expire_nodest_conn(
        "IPVS lets go of connections whose destination is gone, and schedules their SYNs anew; it \
         acts on the next packet",
    )];
    remedies.extend(kube_proxy(&of_namespaces(reading)));
    remedies
}

fn expire_nodest_conn(effect: &str) -> String {
    format!(
        "sysctl -w net.ipv4.vs.expire_nodest_conn=1: {effect}; costs: connections to destinations \
         that were removed end at their next packet instead of timing out; undo: sysctl -w \
         net.ipv4.vs.expire_nodest_conn=0"
    )
}

/// A server's reset leaves both tables in CLOSE without a FIN, and that conntrack entry
/// no SYN may reopen (nf_conntrack_proto_tcp.c, `nf_conntrack_tcp_packet`).
fn against_resets(reading: &Reading, probed: &ProbedReading) -> Option<String> {
    let by_reset = probed.recent.of(Outcome::Dropped, Reason::Close);
    let perhaps = probed.recent.of(Outcome::Dropped, Reason::WeightZero)
        + probed.recent.of(Outcome::Dropped, Reason::DestinationGone);
    let current = reading
        .close_timeout
        .filter(|now| *now > SHORT_CLOSE_TIMEOUT)?;
    let helps = match (by_reset, perhaps) {
        (0, 0) => return None,
        (0, _) => "helps where the old connections were reset by their servers: ",
        (_, _) => "",
    };
    Some(format!(
        "sysctl -w {CLOSE_TIMEOUT}={SHORT_CLOSE_TIMEOUT}: {helps}the conntrack entry of a reset \
         connection goes before the client comes back, and the SYN is scheduled at once; costs: \
         packets of the reset connection that come later meet no entry and are not translated; \
         undo: sysctl -w {CLOSE_TIMEOUT}={current}"
    ))
}

/// IPVS is in TIME_WAIT, conntrack is not: the last acknowledgement was lost.
fn against_half_closed(probed: &ProbedReading) -> Option<String> {
    (probed.recent.of(Outcome::Dropped, Reason::TimeWait) > 0).then(|| {
        "lower net.netfilter.nf_conntrack_tcp_timeout_last_ack (30 s) and \
         nf_conntrack_tcp_timeout_close_wait (60 s): the last acknowledgement of these connections \
         was lost, and their conntrack entries wait for it; costs: connections that are slow to \
         close lose their translation; undo: write the old numbers"
            .to_owned()
    })
}

/// What no setting does.
fn by_sweeping(reading: &Reading) -> Option<String> {
    if !reading.sweep.namespaces.is_empty() {
        return None;
    }
    let before = match reading.has_ctnetlink {
        Some(false) => "modprobe nf_conntrack_netlink, then ",
        Some(true) | None => "",
    };
    Some(format!(
        "{before}nodemedic treat ipvs_conn_reuse --treatment {} --apply: the agent opens the conntrack \
         entries of connections that are dead, and the SYN is scheduled at once; costs: up to two \
         percent of one CPU; undo: nodemedic undo",
        SWEEP.name
    ))
}

fn none_is_safe(probed: &ProbedReading) -> String {
    let drained = probed.recent.of(Outcome::Dropped, Reason::WeightZero);
    if drained > 0 {
        "no setting removes this delay without sending clients to drained destinations \
         (expire_nodest_conn=0), which trades a second for an outage"
            .to_owned()
    } else {
        "no setting removes this delay".to_owned()
    }
}

/// What kube-proxy sets itself on kernels that it takes for unfixed.
fn trade(settings: &VsSettings) -> String {
    match settings.conn_reuse_mode {
        Some(0) => {
            "conn_reuse_mode is 0 already; only drained destinations are still concerned".to_owned()
        }
        _ => "sysctl -w net.ipv4.vs.conn_reuse_mode=0: no SYN waits, but each goes to the \
              destination of its old connection; costs: an outage instead of a delay where that \
              is drained or gone; undo: sysctl -w net.ipv4.vs.conn_reuse_mode=1"
            .to_owned(),
    }
}

fn kube_proxy(settings: &VsSettings) -> Option<String> {
    settings.are_of_kube_proxy().then(|| {
        "these are the settings of kube-proxy in mode ipvs: it writes expire_nodest_conn, conntrack \
         and expire_quiescent_template at each start, so what is changed by hand does not last"
            .to_owned()
    })
}

/// Whether the kernel drops what a fixed one schedules anew: a SYN that meets a
/// connection which both sides have finished. By behaviour, for distributions backport.
fn drops_every_reuse(probed: &ProbedReading) -> bool {
    let finished = |outcome| probed.total.of(outcome, Reason::TimeWait);
    let dropped = finished(Outcome::Dropped);
    dropped >= ENOUGH_TO_TELL && dropped > 10 * finished(Outcome::Rescheduled)
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
