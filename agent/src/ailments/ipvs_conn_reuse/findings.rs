//! The kinds of finding, worst first.

use super::judge::{
    BLACKHOLED, DELAYED, DRAINED_EXPOSED, MISDIRECTED, UDP_BLACKHOLED, UDP_DRAINED,
};
use crate::model::FindingKind;

pub(super) const FINDINGS: &[FindingKind] = &[
    FindingKind {
        kind: BLACKHOLED,
        severity: "critical",
        numbers: "SYNs on reused client ports were dropped without an end in the last window, by probes",
        not: "a SYN that is dropped once: the next one is scheduled",
    },
    FindingKind {
        kind: UDP_BLACKHOLED,
        severity: "critical where datagrams were dropped, else a warning",
        numbers: "the probe kept counted datagrams of flows on removed servers; or such flows stand in /proc/net/ip_vs_conn and nobody counts",
        not: "idle flows on removed servers: they end with their timers",
    },
    FindingKind {
        kind: MISDIRECTED,
        severity: "critical",
        numbers: "SYNs on reused client ports went to destinations with weight 0 in the last window, by probes",
        not: "packets of connections that exist, which a drained server is to get",
    },
    FindingKind {
        kind: UDP_DRAINED,
        severity: "a warning, critical where a server answered before and stopped",
        numbers: "flows on a server with weight 0 stay in use for longer than udp_drained_after, by their expiry. Or the server answered no datagram while the probe answers was attached",
        not: "idle flows; a graceful drain; protocols without answers, such as syslog",
    },
    FindingKind {
        kind: DELAYED,
        severity: "a warning, critical above critical_drops",
        numbers: "SYNs on reused client ports were dropped once in the last window, by probes",
        not: "a full accept queue, or a slow server: IPVS did not drop those",
    },
    FindingKind {
        kind: DRAINED_EXPOSED,
        severity: "a warning",
        numbers: "destinations of TCP have weight 0 while expire_nodest_conn is 0, and no probe counts SYNs",
        not: "drained destinations of UDP, which have no SYN",
    },
];
