//! What can be done against it: what each change does on this kernel and in this
//! configuration, what it costs, how it is undone.
//!
//! What IPVS does with a SYN depends on three things (ip_vs_core.c): the settings, the
//! destination of the old connection, and whether the packet belongs to a conntrack
//! entry that the kernel keeps. The last is what makes clients wait, and no setting of
//! IPVS changes it for the better.

use super::{
    dead::SWEEP_DEAD,
    judge::{BLACKHOLED, DELAYED, DRAINED_EXPOSED, MISDIRECTED, UDP_BLACKHOLED},
    measure::{NamespaceReading, ProbedReading, Reading, SHORT_CLOSE_TIMEOUT},
};
use crate::{
    kernel::conntrack::NETLINK_IS_MISSING,
    model::{Bound, Change, Proposal, Treatment},
};

/// A shorter stay of reset connections in conntrack (default 10 s).
const CLOSE_TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close";
const EXPIRE_NODEST_CONN: &str = "net.ipv4.vs.expire_nodest_conn";

/// Why nothing that is done to conntrack entries helps.
const DROPS_EVERY_REUSE: &str =
    "this kernel drops the first SYN on every reused port, even without the entry";

/// Safest first. `conn_reuse_mode` is not among them: 0 trades a delay for an outage, and
/// what 1 does depends on the kernel's fixes, so that is left to people.
pub(super) const TREATMENTS: &[&Treatment] = &[&CLOSE, &SWEEP, &EXPIRE_NODEST];

static CLOSE: Treatment = Treatment {
    name: "tcp_timeout_close",
    effect: "the conntrack entry of a reset connection expires before the client returns, and \
           IPVS schedules the SYN at once",
    cost: "NAT does not translate late packets of the reset connection",
    acts: "on connections that are reset after the change; earlier ones keep their entries for up \
           to 10 s",
    applies: "where the kernel drops SYNs on the ports of connections that the server reset, if \
           it lets a SYN reopen a finished entry (Linux 5.9 and later, and fixed stable kernels; \
           detected by behaviour)",
    keys: &[Bound {
        key: CLOSE_TIMEOUT,
        allowed: SHORT_CLOSE_TIMEOUT..=SHORT_CLOSE_TIMEOUT,
    }],
    durable: "set net.netfilter.nf_conntrack_tcp_timeout_close=1 in a file of /etc/sysctl.d, and \
              load nf_conntrack before systemd-sysctl runs (a file of /etc/modules-load.d)",
};

static SWEEP: Treatment = Treatment {
    name: "sweep_dead",
    effect: "the agent finds dead connections of IPVS and marks their conntrack entries reusable, \
           so that IPVS schedules the next SYN at once. Dead are connections after a reset, \
           connections that both sides closed, and connections that a drained server closed and \
           that had no answer from the client for 3 s",
    cost: "the agent reads IPVS's connections once a second, for at most 2 % of one CPU, and \
           receives an event for each change of state, a few microseconds each. It removes no \
           entry, so NAT still translates late packets",
    acts: "within milliseconds after a reset, where conntrack sends events (with \
           nf_conntrack_events at 2, only for new entries), else within a second or two. It does \
           not touch connections that may be alive",
    applies: "where the kernel drops SYNs once, if it lets a SYN reopen a finished entry (Linux \
           5.9 and later, and fixed stable kernels; detected by behaviour), while the module \
           nf_conntrack_netlink is loaded; in each network namespace with services and \
           vs.conntrack=1",
    keys: &[Bound {
        key: SWEEP_DEAD,
        allowed: 1..=1,
    }],
    durable: "the agent itself does this: set sweep_dead = \"auto\" in [treatments], and add \
         nf_conntrack_netlink to a file of /etc/modules-load.d",
};

static EXPIRE_NODEST: Treatment = Treatment {
    name: "expire_nodest_conn",
    effect: "IPVS expires TCP connections to drained or removed destinations, and UDP flows to \
           removed ones, at their next packet, and schedules a SYN or a datagram to a new \
           destination",
    cost: "connections to removed destinations end at their next packet instead of at their \
           timeout; the kernel drops a SYN once if the old conntrack entry still exists, and the \
           client waits a second",
    acts: "with the next packet of a connection",
    applies: "where it is 0 and IPVS drops SYNs or UDP datagrams silently, or sends SYNs to \
           drained destinations, in each network namespace with services",
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
        Some(probed) if probed.drops_every_reuse() => Some(DROPS_EVERY_REUSE),
        Some(probed) if !probed.may_be_reset() => {
            Some("no SYN was dropped because of a connection that its server reset")
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
    let changes = namespaces.map(|it| Change::new(SWEEP_DEAD, it.netns, 0, 1));
    let objection = if reading
        .probed
        .as_ref()
        .is_some_and(ProbedReading::drops_every_reuse)
    {
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
        &[BLACKHOLED, UDP_BLACKHOLED, MISDIRECTED, DRAINED_EXPOSED],
        changes,
    )
}
