//! The verdict: a pure function of a reading and the limits.

use ebpf::{
    ipvs_conn_reuse::{DELAY_UNIT_NS, Outcome},
    shared::histogram::bound_ns,
};

use super::{
    Settings,
    measure::{NamespaceReading, ProbedReading, Reading, ServiceReading, Syns},
    treat,
};
use crate::report::{Evidence, Finding, Party, Severity};

/// The kinds of finding, worst first.
pub(super) const KINDS: &[&str] = &[BLACK_HOLED, MISDIRECTED, DELAYED, EXPOSED];
const BLACK_HOLED: &str = "black_holed";
const MISDIRECTED: &str = "misdirected";
const DELAYED: &str = "delayed";
const EXPOSED: &str = "exposed";

/// Parties that a finding names.
const NAMED: usize = 5;

/// What is wrong, worst first.
pub(super) fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
    match &reading.probed {
        Some(probed) => [
            black_holed(reading, probed),
            misdirected(reading, probed),
            delayed(reading, probed, settings),
        ]
        .into_iter()
        .flatten()
        .collect(),
        None => exposed(reading).into_iter().collect(),
    }
}

/// SYNs were dropped, and the next ones will be as well.
fn black_holed(reading: &Reading, probed: &ProbedReading) -> Option<Finding> {
    let syns = probed.window.outcomes();
    let dropped = syns.dropped_silently;
    (dropped > 0).then(|| Finding {
        kind: BLACK_HOLED.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "{dropped} SYNs on reused client ports were dropped, as every repetition will be: \
             their old connections lead to destinations that are gone, and IPVS keeps them"
        ),
        evidence: vec![
            seen(Outcome::DroppedSilently, dropped),
            share(&syns, dropped),
        ],
        culprits: culprits(probed, Outcome::DroppedSilently),
        victims: victims(probed, Outcome::DroppedSilently),
        remedies: treat::black_holed(reading),
    })
}

/// SYNs went to a destination that is drained.
fn misdirected(reading: &Reading, probed: &ProbedReading) -> Option<Finding> {
    let syns = probed.window.outcomes();
    let sent = syns.stale_destination;
    (sent > 0).then(|| Finding {
        kind: MISDIRECTED.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "{sent} SYNs on reused client ports were sent to destinations of weight 0, where \
             their old connections led"
        ),
        evidence: vec![seen(Outcome::StaleDestination, sent), share(&syns, sent)],
        culprits: culprits(probed, Outcome::StaleDestination),
        victims: victims(probed, Outcome::StaleDestination),
        remedies: treat::misdirected(reading),
    })
}

/// SYNs were dropped once, and their clients waited for a second or more.
fn delayed(reading: &Reading, probed: &ProbedReading, settings: &Settings) -> Option<Finding> {
    let syns = probed.window.outcomes();
    let dropped = syns.dropped;
    if dropped == 0 {
        return None;
    }
    let critical = dropped > u64::from(settings.critical_drops);
    let mut evidence = vec![seen(Outcome::Dropped, dropped), share(&syns, dropped)];
    evidence.extend(delays(probed));
    Some(Finding {
        kind: DELAYED.to_owned(),
        severity: if critical {
            Severity::Critical
        } else {
            Severity::Warning
        },
        summary: format!(
            "{dropped} SYNs on reused client ports were dropped; their clients wait for a second \
             or more until they try again"
        ),
        evidence,
        culprits: culprits(probed, Outcome::Dropped),
        victims: victims(probed, Outcome::Dropped),
        remedies: treat::delayed(reading, probed),
    })
}

/// Without probes: the settings keep connections to destinations that are drained.
fn exposed(reading: &Reading) -> Option<Finding> {
    let namespaces: Vec<_> = reading
        .namespaces
        .iter()
        .filter(|namespace| is_exposed(namespace))
        .collect();
    let drained = namespaces.iter().map(|namespace| namespace.census.drained);
    let drained: u64 = drained.sum();
    (drained > 0).then(|| Finding {
        kind: EXPOSED.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "{drained} destinations have weight 0 while expire_nodest_conn is 0: a SYN on the port \
             of an old connection goes to them; without probes it is not known whether any did"
        ),
        evidence: namespaces
            .iter()
            .map(|namespace| Evidence {
                metric: format!(
                    "destinations of weight 0 in network namespace {}",
                    namespace.netns
                ),
                value: namespace.census.drained as f64,
                limit: Some(0.0),
            })
            .collect(),
        culprits: Vec::new(),
        victims: Vec::new(),
        remedies: treat::misdirected(reading),
    })
}

fn is_exposed(namespace: &NamespaceReading) -> bool {
    namespace.settings.expire_nodest_conn == Some(0) && namespace.census.drained > 0
}

fn seen(outcome: Outcome, syns: u64) -> Evidence {
    Evidence {
        metric: format!(
            "nodemedic_ipvs_conn_reuse_syns_total{{outcome={:?}}} in the window",
            outcome.name()
        ),
        value: syns as f64,
        limit: Some(0.0),
    }
}

fn share(all: &Syns, part: u64) -> Evidence {
    Evidence {
        metric: "share of the SYNs that met a connection".to_owned(),
        value: part as f64 / all.total().max(1) as f64,
        limit: None,
    }
}

/// The delays of the window by the bounds of their buckets, and who waits still.
fn delays(probed: &ProbedReading) -> Vec<Evidence> {
    let buckets = &probed.window.delays;
    let bounded = |index: Option<usize>| {
        index.map(|index| bound_ns(index.min(buckets.len() - 2), DELAY_UNIT_NS) as f64 / 1e9)
    };
    let longest = bounded(buckets.iter().rposition(|clients| *clients > 0));
    let rows = [
        (
            "half of the clients that connected had waited for up to, seconds",
            bounded(median(buckets)),
        ),
        ("the longest of them for up to, seconds", longest),
        (
            "nodemedic_ipvs_conn_reuse_waiting",
            (probed.waiting > 0).then_some(probed.waiting as f64),
        ),
        (
            "the first of those that wait now has waited for, seconds",
            (probed.waiting > 0).then_some(probed.longest_wait_seconds),
        ),
        (
            "nodemedic_ipvs_conn_reuse_never_connected_total in the window",
            (probed.window.never_connected > 0).then_some(probed.window.never_connected as f64),
        ),
    ];
    rows.into_iter()
        .filter_map(|(metric, value)| {
            Some(Evidence {
                metric: metric.to_owned(),
                value: value?,
                limit: None,
            })
        })
        .collect()
}

/// The bucket that the middle one of all values is in.
fn median(buckets: &[u64]) -> Option<usize> {
    let all: u64 = buckets.iter().sum();
    let mut below = 0;
    buckets.iter().position(|events| {
        below += events;
        below > 0 && below * 2 >= all
    })
}

/// The services whose old connections are in the way, with where they led.
fn culprits(probed: &ProbedReading, outcome: Outcome) -> Vec<Party> {
    let all = probed.window.outcomes().of(outcome);
    let named = |service: &ServiceReading| Party {
        who: format!(
            "old connections of service {} (TCP) to {} in network namespace {}",
            service.service, service.old_destination, service.netns
        ),
        share: match service.new_destination {
            Some(new) => format!(
                "{} of {all}; new connections went to {new} last",
                service.syns.of(outcome)
            ),
            None => format!("{} of {all}", service.syns.of(outcome)),
        },
    };
    let services = probed.top_services.iter();
    services
        .filter(|service| service.syns.of(outcome) > 0)
        .take(NAMED)
        .map(named)
        .collect()
}

fn victims(probed: &ProbedReading, outcome: Outcome) -> Vec<Party> {
    let all = probed.window.outcomes().of(outcome);
    let clients = probed.top_clients.iter();
    clients
        .filter(|client| client.syns.of(outcome) > 0)
        .take(NAMED)
        .map(|client| Party {
            who: format!("client {}", client.client),
            share: format!("{} of {all} SYNs", client.syns.of(outcome)),
        })
        .collect()
}
