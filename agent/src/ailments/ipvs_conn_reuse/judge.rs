//! The verdict: a pure function of a reading and the limits.

mod delays;
mod udp;

use ebpf::ipvs_conn_reuse::Outcome;

use super::{
    Settings, advice,
    measure::{NamespaceReading, ProbedReading, Reading, ServiceReading, Syns},
};

use crate::model::{Evidence, Finding, Party, Severity};

pub(super) const BLACKHOLED: &str = "blackholed";
pub(super) const UDP_BLACKHOLED: &str = "udp_blackholed";
pub(super) const UDP_DRAINED: &str = "udp_drained";
pub(super) const MISDIRECTED: &str = "misdirected";
pub(super) const DELAYED: &str = "delayed";
pub(super) const DRAINED_EXPOSED: &str = "drained_exposed";

/// Parties that a finding names.
const NAMED: usize = 5;

/// What is wrong, worst first.
pub(super) fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
    let probed = reading.probed.as_ref();
    [
        probed.and_then(|it| blackholed(reading, it)),
        udp::blackholed(reading),
        probed.and_then(|it| misdirected(reading, it)),
        udp::drained(reading, settings),
        probed.and_then(|it| delayed(reading, it, settings)),
        if probed.is_none() {
            exposed(reading)
        } else {
            None
        },
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What a reading without findings does not rule out.
pub(super) fn unknown(reading: &Reading) -> Vec<String> {
    let mut namespaces = reading.namespaces.iter();
    // Destinations without a service cannot be, and are no reason to say less.
    let has_services = namespaces.any(|it| it.scan.services > 0 || drained_of_syns(it) > 0);
    let syns = (has_services && reading.probed.is_none()).then(|| {
        "cannot tell whether IPVS drops SYNs on reused client ports: no probe counts them, and the \
         kernel does not"
            .to_owned()
    });
    let [(_, drained), _] = reading.udp_flows();
    let why = reading.udp.unread.values().next();
    let why = why.map_or("each was seen once", String::as_str);
    let flows = (drained.unknown > 0).then(|| {
        format!(
            "cannot tell whether {} UDP flows on drained destinations are in use: {why}",
            drained.unknown
        )
    });
    syns.into_iter().chain(flows).collect()
}

/// SYNs were dropped, and the next ones will be as well.
fn blackholed(reading: &Reading, probed: &ProbedReading) -> Option<Finding> {
    let syns = probed.recent.outcomes();
    let dropped = syns.dropped_silently;
    (dropped > 0).then(|| Finding {
        kind: BLACKHOLED.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "IPVS dropped {dropped} SYNs on reused client ports and will drop every repetition: \
             it keeps their old connections to removed destinations"
        ),
        evidence: vec![
            seen(Outcome::DroppedSilently, dropped),
            share(&syns, dropped),
        ],
        culprits: culprits(reading, probed, Outcome::DroppedSilently),
        victims: victims(reading, probed, Outcome::DroppedSilently),
        remedies: advice::blackholed(reading),
        follows_load: false,
    })
}

/// SYNs went to a destination that is drained.
fn misdirected(reading: &Reading, probed: &ProbedReading) -> Option<Finding> {
    let syns = probed.recent.outcomes();
    let sent = syns.stale_destination;
    (sent > 0).then(|| Finding {
        kind: MISDIRECTED.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "IPVS sent {sent} SYNs on reused client ports to destinations with weight 0, those of \
             their old connections"
        ),
        evidence: vec![seen(Outcome::StaleDestination, sent), share(&syns, sent)],
        culprits: culprits(reading, probed, Outcome::StaleDestination),
        victims: victims(reading, probed, Outcome::StaleDestination),
        remedies: advice::misdirected(reading),
        follows_load: false,
    })
}

/// SYNs were dropped once, and their clients waited for a second or more.
fn delayed(reading: &Reading, probed: &ProbedReading, settings: &Settings) -> Option<Finding> {
    let syns = probed.recent.outcomes();
    let dropped = syns.dropped;
    if dropped == 0 {
        return None;
    }
    let critical = dropped > u64::from(settings.critical_drops);
    let mut evidence = vec![seen(Outcome::Dropped, dropped), share(&syns, dropped)];
    evidence.extend(delays::evidence(probed));
    Some(Finding {
        kind: DELAYED.to_owned(),
        severity: if critical {
            Severity::Critical
        } else {
            Severity::Warning
        },
        summary: format!(
            "the kernel dropped {dropped} SYNs on reused client ports; their clients wait a \
             second or longer before they repeat them"
        ),
        evidence,
        culprits: culprits(reading, probed, Outcome::Dropped),
        victims: victims(reading, probed, Outcome::Dropped),
        remedies: advice::delayed(reading, probed),
        follows_load: false,
    })
}

/// Without probes: the settings keep connections to destinations that are drained.
fn exposed(reading: &Reading) -> Option<Finding> {
    let namespaces: Vec<_> = reading
        .namespaces
        .iter()
        .filter(|namespace| is_exposed(namespace))
        .collect();
    let drained = namespaces.iter().map(|it| drained_of_syns(it));
    let drained: u64 = drained.sum();
    (drained > 0).then(|| Finding {
        kind: DRAINED_EXPOSED.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "{drained} destinations have weight 0 while expire_nodest_conn is 0: a SYN on the \
             port of an old connection goes to them; whether any did is unknown without probes"
        ),
        evidence: namespaces
            .iter()
            .map(|namespace| Evidence {
                metric: format!(
                    "destinations with weight 0 in network namespace {}",
                    namespace.netns
                ),
                value: drained_of_syns(namespace) as f64,
                limit: Some(0.0),
            })
            .collect(),
        culprits: Vec::new(),
        victims: Vec::new(),
        remedies: advice::misdirected(reading),
        follows_load: false,
    })
}

/// Drained destinations that a SYN can go to; UDP has none.
fn drained_of_syns(namespace: &NamespaceReading) -> u64 {
    let scan = &namespace.scan;
    scan.drained.saturating_sub(scan.drained_udp)
}

fn is_exposed(namespace: &NamespaceReading) -> bool {
    namespace.settings.expire_nodest_conn == Some(0) && drained_of_syns(namespace) > 0
}

fn seen(outcome: Outcome, syns: u64) -> Evidence {
    Evidence {
        metric: format!(
            "nodemedic_ipvs_conn_reuse_syns_total{{outcome={:?}}} lately",
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

/// The services whose old connections are in the way, with where they led.
fn culprits(reading: &Reading, probed: &ProbedReading, outcome: Outcome) -> Vec<Party> {
    let all = probed.recent.outcomes().of(outcome);
    let neighbours = &reading.neighbours;
    let named = |service: &ServiceReading| Party {
        who: format!(
            "old connections of service {} (TCP) to {} in network namespace {}",
            service.service,
            neighbours.endpoint(service.old_destination),
            neighbours.netns(service.netns)
        ),
        share: match service.new_destination {
            Some(new) => format!(
                "{} of {all}; new connections went to {} last",
                service.syns.of(outcome),
                neighbours.endpoint(new)
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

fn victims(reading: &Reading, probed: &ProbedReading, outcome: Outcome) -> Vec<Party> {
    let all = probed.recent.outcomes().of(outcome);
    let clients = probed.top_clients.iter();
    clients
        .filter(|client| client.syns.of(outcome) > 0)
        .take(NAMED)
        .map(|client| Party {
            who: format!("client {}", reading.neighbours.address(client.client)),
            share: format!("{} of {all} SYNs", client.syns.of(outcome)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ebpf::ipvs_conn_reuse::Reason;

    use super::{super::treat, *};
    use crate::{
        ailments::ipvs_conn_reuse::{
            IpvsConnReuse,
            dead::SweepReading,
            measure::{ClientReading, Counts, DroppedReading, UdpReading, VsSettings},
        },
        collector::{self, knowledge},
        kernel::ipvs::Scan,
        node::Neighbours,
    };

    pub(super) const KUBE_PROXY: VsSettings = VsSettings {
        conn_reuse_mode: Some(1),
        expire_nodest_conn: Some(1),
        conntrack: Some(1),
        expire_quiescent_template: Some(1),
    };

    /// A reading in which these SYNs of one client were seen.
    pub(super) fn reading(seen: &[(Outcome, Reason, u64)], settings: VsSettings) -> Reading {
        let mut recent = Counts::empty();
        for (outcome, reason, syns) in seen {
            recent.syns[*outcome as usize][*reason as usize] = *syns;
        }
        let syns = recent.outcomes();
        let service = ServiceReading {
            netns: 7,
            service: "10.96.0.1:80".parse().expect("an address"),
            old_destination: "10.3.0.2:7000".parse().expect("an address"),
            new_destination: Some("10.4.0.2:7000".parse().expect("an address")),
            settings,
            syns,
        };
        let client = ClientReading {
            netns: 7,
            client: "10.1.0.2".parse().expect("an address"),
            syns,
        };
        Reading {
            window_seconds: 10.0,
            namespaces: vec![NamespaceReading {
                netns: 7,
                pid: 1,
                scan: Scan {
                    services: 1,
                    destinations: 2,
                    drained: 1,
                    complete: true,
                    ..Scan::default()
                },
                settings,
            }],
            netns: Some(7),
            close_timeout: Some(10),
            has_ctnetlink: Some(true),
            udp: UdpReading::default(),
            sweep: SweepReading::default(),
            probed: Some(ProbedReading {
                total: recent.clone(),
                recent,
                recent_seconds: 60.0,
                services: vec![service.clone()],
                other_services: Syns::default(),
                top_services: vec![service],
                clients: vec![client.clone()],
                other_clients: Syns::default(),
                top_clients: vec![client],
                waiting: 0,
                longest_wait_seconds: 0.0,
                tracing: false,
                tracing_answers: false,
                dropped: DroppedReading::default(),
                lost: Vec::new(),
            }),
            neighbours: Neighbours::default(),
        }
    }

    fn judged(seen: &[(Outcome, Reason, u64)], settings: VsSettings) -> Vec<Finding> {
        judge(&reading(seen, settings), &Settings::default())
    }

    pub(super) fn kinds(findings: &[Finding]) -> Vec<&str> {
        findings
            .iter()
            .map(|finding| finding.kind.as_str())
            .collect()
    }

    #[test]
    fn what_is_scheduled_anew_is_healthy() {
        for reason in Reason::ALL {
            let seen = [(Outcome::Rescheduled, reason, 1_000)];
            assert_eq!(kinds(&judged(&seen, KUBE_PROXY)), [""; 0]);
        }
    }

    #[test]
    fn each_other_outcome_is_a_finding_and_the_worst_comes_first() {
        let seen = [
            (Outcome::Dropped, Reason::Close, 1),
            (Outcome::StaleDestination, Reason::WeightZero, 1),
            (Outcome::DroppedSilently, Reason::DestinationGone, 1),
        ];
        let found = judged(&seen, VsSettings::default());
        assert_eq!(kinds(&found), [BLACKHOLED, MISDIRECTED, DELAYED]);
        for finding in &found {
            let named = format!("{:?} {:?}", finding.culprits, finding.victims);
            for name in ["10.96.0.1:80", "10.3.0.2:7000", "10.4.0.2:7000", "10.1.0.2"] {
                assert!(named.contains(name), "{name} is not in {named}");
            }
        }
    }

    #[test]
    fn a_few_delays_are_a_warning_and_many_are_critical() {
        let severity =
            |drops| judged(&[(Outcome::Dropped, Reason::Close, drops)], KUBE_PROXY)[0].severity;
        assert_eq!(severity(30), Severity::Warning);
        assert_eq!(severity(31), Severity::Critical);
    }

    fn remedies(seen: &[(Outcome, Reason, u64)], settings: VsSettings) -> String {
        remedies_of(&reading(seen, settings))
    }

    /// Those of the worst finding.
    fn remedies_of(reading: &Reading) -> String {
        let (_, found) = collector::judged::<IpvsConnReuse>(reading, &Settings::default());
        found[0].remedies.join("\n")
    }

    #[test]
    fn a_reset_by_the_server_is_treated_in_conntrack_and_not_in_ipvs() {
        let text = remedies(&[(Outcome::Dropped, Reason::Close, 5)], KUBE_PROXY);
        assert!(text.contains("nf_conntrack_tcp_timeout_close=1"), "{text}");
        assert!(
            text.contains("do not set net.ipv4.vs.conn_reuse_mode=0"),
            "{text}"
        );
        assert!(text.contains("kube-proxy"), "{text}");
        assert!(!text.contains("use a kernel"), "{text}");
    }

    #[test]
    fn where_nothing_helps_it_is_said_so() {
        let mut reading = reading(&[(Outcome::Dropped, Reason::WeightZero, 5)], KUBE_PROXY);
        reading.close_timeout = Some(1);
        let text = remedies_of(&reading);
        assert!(
            text.contains("every setting that removes this delay"),
            "{text}"
        );
        assert!(text.contains("an outage instead of a second"), "{text}");
    }

    #[test]
    fn an_unfixed_kernel_is_known_by_what_it_does() {
        let text = remedies(&[(Outcome::Dropped, Reason::TimeWait, 20)], KUBE_PROXY);
        assert!(text.contains("use a kernel"), "{text}");
        assert!(text.contains("an outage instead of a delay"), "{text}");
        // A fixed one drops few of many: the last acknowledgement of those was lost.
        let seen = [
            (Outcome::Dropped, Reason::TimeWait, 20),
            (Outcome::Rescheduled, Reason::TimeWait, 500),
        ];
        let text = remedies(&seen, KUBE_PROXY);
        assert!(!text.contains("use a kernel"), "{text}");
        assert!(text.contains("nf_conntrack_tcp_timeout_last_ack"), "{text}");
    }

    /// Why entries of dead connections are not opened, or in which namespaces they are.
    fn sweep(change: impl FnOnce(&mut Reading)) -> Result<Vec<u32>, String> {
        let mut reading = reading(&[(Outcome::Dropped, Reason::Close, 5)], KUBE_PROXY);
        change(&mut reading);
        let proposals = treat::proposals(&reading);
        let sweep = proposals
            .into_iter()
            .find(|it| it.treatment == "sweep_dead");
        let sweep = sweep.expect("it is always proposed");
        match sweep.objection {
            Some(objection) => Err(objection),
            None => Ok(sweep.changes.iter().map(|change| change.netns).collect()),
        }
    }

    #[test]
    fn dead_connections_are_swept_where_that_helps_and_is_not_done_yet() {
        assert_eq!(sweep(|_| {}), Ok(vec![7]));
        assert_eq!(sweep(|it| it.sweep.namespaces = vec![7]), Ok(Vec::new()));
        // Without conntrack entries of its connections IPVS drops no SYN for them.
        let without = |it: &mut Reading| it.namespaces[0].settings.conntrack = Some(0);
        assert_eq!(sweep(without), Ok(Vec::new()));
        let why = sweep(|it| it.has_ctnetlink = Some(false)).expect_err("nobody can be asked");
        assert!(why.contains("modprobe nf_conntrack_netlink"), "{why}");
        let unfixed = |it: &mut Reading| {
            let seen = [(Outcome::Dropped, Reason::TimeWait, 20)];
            *it = reading(&seen, KUBE_PROXY);
        };
        let why = sweep(unfixed).expect_err("it drops every reuse");
        assert!(why.contains("drops the first SYN"), "{why}");
    }

    #[test]
    fn without_probes_the_settings_are_judged_alone() {
        let without = |expire_nodest_conn| {
            let settings = VsSettings {
                expire_nodest_conn,
                ..KUBE_PROXY
            };
            let mut reading = reading(&[], settings);
            reading.probed = None;
            judge(&reading, &Settings::default())
        };
        assert_eq!(kinds(&without(Some(0))), [DRAINED_EXPOSED]);
        assert_eq!(kinds(&without(Some(1))), [""; 0]);
        assert_eq!(kinds(&without(None)), [""; 0]);
    }

    /// One reading for each way in which a verdict on SYNs comes about.
    fn wrong() -> Vec<(&'static str, Reading)> {
        let of = |outcome| reading(&[(outcome, Reason::Close, 90)], KUBE_PROXY);
        let keeps = VsSettings {
            expire_nodest_conn: Some(0),
            ..KUBE_PROXY
        };
        let without_probes = Reading {
            probed: None,
            ..reading(&[], keeps)
        };
        vec![
            ("dropped silently", of(Outcome::DroppedSilently)),
            ("a stale destination", of(Outcome::StaleDestination)),
            ("dropped once", of(Outcome::Dropped)),
            ("settings", without_probes),
        ]
    }

    #[test]
    fn no_missing_fact_and_no_two_make_a_verdict_healthy() {
        knowledge::less_is_never_healthy::<IpvsConnReuse>(&wrong());
    }

    #[test]
    fn any_counters_are_judged_by_numbers() {
        knowledge::any_numbers_are_judged::<IpvsConnReuse>(&wrong(), &["/probed"]);
    }
}
