//! UDP flows that IPVS keeps on a removed or a drained destination.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{NAMED, UDP_BLACKHOLED, UDP_DRAINED};
use crate::{
    ailments::ipvs_conn_reuse::{
        Settings, advice,
        measure::{
            DestinationState, DroppedFlow, DroppedReading, ProbedReading, Reading, Traffic,
            UdpDestination,
        },
    },
    model::{Evidence, Finding, Party, Severity},
};

/// With fewer datagrams than this in a turn nothing is said of answers.
const ENOUGH_TO_TELL: u64 = 3;

/// IPVS drops each datagram to a removed destination, unless it is set to expire the flow.
pub(super) fn blackholed(reading: &Reading) -> Option<Finding> {
    let probed = reading.probed.as_ref();
    match probed.filter(|it| it.dropped.recent > 0) {
        Some(probed) => Some(dropped(reading, probed)),
        None => standing(reading, probed.is_some_and(|it| it.dropped.is_watched)),
    }
}

/// Datagrams were dropped.
fn dropped(reading: &Reading, probed: &ProbedReading) -> Finding {
    let DroppedReading {
        recent,
        recent_flows,
        top,
        ..
    } = &probed.dropped;
    let seconds = probed.recent_seconds;
    Finding {
        kind: UDP_BLACKHOLED.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "IPVS dropped {recent} UDP datagrams in {seconds:.0} s: it keeps {recent_flows} flows \
             on servers that were removed, and nobody answers them"
        ),
        evidence: vec![
            value(
                "nodemedic_ipvs_conn_reuse_udp_dropped_total lately",
                *recent as f64,
                Some(0.0),
            ),
            value(
                "UDP datagrams dropped a second",
                *recent as f64 / seconds.max(1.0),
                None,
            ),
            value("UDP flows that lost datagrams", *recent_flows as f64, None),
        ],
        culprits: dropped_by(reading, top, *recent),
        victims: top
            .iter()
            .take(NAMED)
            .map(|flow| Party {
                who: format!(
                    "client {} of service {} (UDP)",
                    reading.neighbours.endpoint(flow.client),
                    flow.service
                ),
                share: format!(
                    "{} of {recent} datagrams, for {:.0} s or longer",
                    flow.datagrams, flow.seconds
                ),
            })
            .collect(),
        remedies: advice::udp_blackholed(reading),
        follows_load: false,
    }
}

/// The removed destinations, most datagrams first.
fn dropped_by(reading: &Reading, flows: &[DroppedFlow], all: u64) -> Vec<Party> {
    let mut sums: BTreeMap<(u32, SocketAddr, SocketAddr), (u64, u64, f64)> = BTreeMap::new();
    for flow in flows {
        let place = (flow.netns, flow.service, flow.destination);
        let sum = sums.entry(place).or_default();
        sum.0 += flow.datagrams;
        sum.1 += 1;
        sum.2 = sum.2.max(flow.seconds);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (datagrams, ..))| std::cmp::Reverse(*datagrams));
    sums.into_iter()
        .take(NAMED)
        .map(|(place, (datagrams, flows, seconds))| Party {
            who: flows_on(reading, "removed", place),
            share: format!(
                "{datagrams} of {all} datagrams, of {flows} flows, for {seconds:.0} s or longer"
            ),
        })
        .collect()
}

/// Without the probe: flows stand on removed destinations, and nobody knows who still sends.
fn standing(reading: &Reading, is_watched: bool) -> Option<Finding> {
    if is_watched {
        return None;
    }
    let removed: Vec<_> = reading
        .udp
        .destinations
        .iter()
        .filter(|it| it.state == DestinationState::Removed && keeps(reading, it.netns))
        .collect();
    let flows: u64 = removed.iter().map(|it| it.flows.total()).sum();
    let last = removed.iter().map(|it| it.expires_seconds).max();
    (flows > 0).then(|| Finding {
        kind: UDP_BLACKHOLED.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "{flows} UDP flows stand on servers that were removed, and IPVS drops their datagrams; \
             whether clients still send any is unknown without the probe kept"
        ),
        evidence: vec![
            value("UDP flows on removed servers", flows as f64, Some(0.0)),
            value(
                "seconds until the last of them expires",
                last.unwrap_or(0) as f64,
                None,
            ),
        ],
        culprits: removed
            .iter()
            .take(NAMED)
            .map(|it| Party {
                who: flows_on(reading, "removed", (it.netns, it.service, it.destination)),
                share: format!("{} of {flows} flows", it.flows.total()),
            })
            .collect(),
        victims: Vec::new(),
        remedies: advice::udp_blackholed(reading),
        follows_load: false,
    })
}

/// Whether IPVS goes on dropping such datagrams.
fn keeps(reading: &Reading, netns: u32) -> bool {
    let namespace = reading.namespaces.iter().find(|it| it.netns == netns);
    namespace.is_none_or(|it| it.settings.expire_nodest_conn != Some(1))
}

/// Whether a drained destination answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Yes,
    /// It answered earlier, while the agent looked.
    NoMore,
    /// It did not while the agent looked: its protocol may need no answer.
    No,
    Unknown,
}

fn answers(destination: &UdpDestination) -> Answers {
    match destination.traffic {
        Some(it) if it.datagrams < ENOUGH_TO_TELL && it.answers == 0 => Answers::Unknown,
        Some(it) if it.answers > 0 => Answers::Yes,
        Some(it) if it.has_answered => Answers::NoMore,
        Some(_) => Answers::No,
        None => Answers::Unknown,
    }
}

/// Flows in use on drained destinations: to drain is wanted, so only those that last, or that
/// nobody answers.
pub(super) fn drained(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let limit = settings.udp_drained_after.as_secs_f64();
    let is_wrong = |it: &&UdpDestination| {
        it.state.is_drained()
            && it.flows.in_use > 0
            && (it.in_use_seconds >= limit || matches!(answers(it), Answers::No | Answers::NoMore))
    };
    let destinations: Vec<_> = reading.udp.destinations.iter().filter(is_wrong).collect();
    if destinations.is_empty() {
        return None;
    }
    let flows: u64 = destinations.iter().map(|it| it.flows.in_use).sum();
    let lasts = destinations.iter().map(|it| it.in_use_seconds);
    let stopped = destinations.iter().any(|it| answers(it) == Answers::NoMore);
    let mut evidence = vec![
        value(
            "UDP flows in use on drained servers",
            flows as f64,
            Some(0.0),
        ),
        value(
            "longest time that such flows were seen in use, seconds",
            lasts.fold(0.0, f64::max),
            Some(limit),
        ),
    ];
    evidence.extend(rates(&destinations));
    let victims = destinations.iter().filter(|it| answers(it) != Answers::Yes);
    Some(Finding {
        kind: UDP_DRAINED.to_owned(),
        severity: if stopped {
            Severity::Critical
        } else {
            Severity::Warning
        },
        summary: format!(
            "{flows} UDP flows in use stay on {} drained servers (weight 0); {}",
            destinations.len(),
            say_answers(&destinations)
        ),
        evidence,
        culprits: destinations
            .iter()
            .take(NAMED)
            .map(|it| culprit(reading, it))
            .collect(),
        victims: victims
            .flat_map(|it| clients(reading, it))
            .take(NAMED)
            .collect(),
        remedies: advice::udp_drained(reading, destinations[0]),
        follows_load: false,
    })
}

fn say_answers(destinations: &[&UdpDestination]) -> String {
    let count = |wanted: &[Answers]| {
        let all = destinations.iter();
        all.filter(|it| wanted.contains(&answers(it))).count()
    };
    let [no_more, no, unknown] = [
        count(&[Answers::NoMore]),
        count(&[Answers::No]),
        count(&[Answers::Unknown]),
    ];
    let mut words = Vec::new();
    if no_more > 0 {
        words.push(format!("{no_more} of them stopped answering"));
    }
    if no > 0 {
        words.push(format!("{no} of them answered no datagram"));
    }
    if unknown > 0 {
        words.push(format!("whether {unknown} of them answer is unknown"));
    }
    if words.is_empty() {
        "they still answer".to_owned()
    } else {
        words.join(", ")
    }
}

/// Of the last turn of the probe.
fn rates(destinations: &[&UdpDestination]) -> Vec<Evidence> {
    let turns: Vec<_> = destinations.iter().filter_map(|it| it.traffic).collect();
    if turns.is_empty() {
        return Vec::new();
    }
    let rate = |count: fn(&Traffic) -> u64| {
        let rates = turns
            .iter()
            .map(|it| count(it) as f64 / it.seconds.max(1.0));
        rates.sum::<f64>()
    };
    vec![
        value(
            "UDP datagrams to them a second",
            rate(|it| it.datagrams),
            None,
        ),
        value("answers of them a second", rate(|it| it.answers), None),
    ]
}

fn culprit(reading: &Reading, destination: &UdpDestination) -> Party {
    let UdpDestination {
        netns,
        service,
        destination: address,
        state,
        flows,
        in_use_seconds,
        traffic,
        ..
    } = destination;
    let answers = match (traffic, state) {
        (Some(it), _) => format!(
            "{} datagrams and {} answers in {:.0} s",
            it.datagrams, it.answers, it.seconds
        ),
        (None, DestinationState::DrainedUntranslated) => {
            "answers unknown: they do not pass IPVS".to_owned()
        }
        (None, _) => "answers unknown: not traced".to_owned(),
    };
    Party {
        who: flows_on(reading, "drained", (*netns, *service, *address)),
        share: format!(
            "{} of {} flows in use, for {in_use_seconds:.0} s or longer; {answers}",
            flows.in_use,
            flows.total()
        ),
    }
}

fn clients(reading: &Reading, destination: &UdpDestination) -> Vec<Party> {
    let in_use = destination.flows.in_use;
    let clients = destination.clients.iter().take(in_use as usize);
    clients
        .map(|client| Party {
            who: format!(
                "client {} of service {} (UDP)",
                reading.neighbours.endpoint(*client),
                destination.service
            ),
            share: format!("1 of {in_use} flows in use"),
        })
        .collect()
}

fn flows_on(
    reading: &Reading,
    state: &str,
    (netns, service, destination): (u32, SocketAddr, SocketAddr),
) -> String {
    format!(
        "flows of service {service} (UDP) on the {state} server {} in network namespace {}",
        reading.neighbours.endpoint(destination),
        reading.neighbours.netns(netns)
    )
}

fn value(metric: &str, value: f64, limit: Option<f64>) -> Evidence {
    Evidence {
        metric: metric.to_owned(),
        value,
        limit,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            judge,
            tests::{KUBE_PROXY, kinds, reading},
        },
        *,
    };
    use crate::{
        ailments::ipvs_conn_reuse::{
            IpvsConnReuse,
            measure::{Flows, VsSettings},
        },
        collector,
    };

    const KEEPS: VsSettings = VsSettings {
        expire_nodest_conn: Some(0),
        ..KUBE_PROXY
    };

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn destination(state: DestinationState, in_use: u64, seconds: f64) -> UdpDestination {
        UdpDestination {
            netns: 7,
            service: at("10.96.0.10:53"),
            destination: at("10.3.0.2:53"),
            state,
            flows: Flows {
                in_use,
                idle: 4,
                unknown: 0,
            },
            seconds,
            in_use_seconds: seconds,
            expires_seconds: 250,
            clients: vec![at("10.1.0.2:5353"), at("10.1.0.3:40000")],
            traffic: None,
        }
    }

    fn with(settings: VsSettings, destination: Option<UdpDestination>) -> Reading {
        let mut reading = reading(&[], settings);
        reading.udp.destinations.extend(destination);
        reading
    }

    fn found(reading: &Reading) -> Vec<Finding> {
        collector::judged::<IpvsConnReuse>(reading, &Settings::default()).1
    }

    /// A reading in which datagrams to a removed server were dropped.
    fn losing(datagrams: u64, settings: VsSettings) -> Reading {
        let mut reading = with(settings, None);
        let probed = reading.probed.as_mut().expect("it has probes");
        probed.dropped = DroppedReading {
            is_watched: true,
            total: datagrams,
            recent: datagrams,
            recent_flows: 1,
            top: vec![DroppedFlow {
                netns: 7,
                service: at("10.96.0.10:53"),
                destination: at("10.3.0.2:53"),
                client: at("10.1.0.2:5353"),
                datagrams,
                seconds: 42.0,
            }],
        };
        reading
    }

    #[test]
    fn dropped_datagrams_are_critical_and_name_service_server_client_and_since_when() {
        let found = found(&losing(300, KEEPS));
        assert_eq!(kinds(&found), [UDP_BLACKHOLED]);
        assert_eq!(found[0].severity, Severity::Critical);
        let named = format!("{:?} {:?}", found[0].culprits, found[0].victims);
        for name in [
            "10.96.0.10:53",
            "10.3.0.2:53",
            "10.1.0.2:5353",
            "300 of 300",
            "42 s",
        ] {
            assert!(named.contains(name), "{name} is not in {named}");
        }
        let remedies = found[0].remedies.join("\n");
        assert!(remedies.contains("expire_nodest_conn=1"), "{remedies}");
    }

    #[test]
    fn flows_to_removed_servers_that_lose_nothing_are_healthy() {
        let removed = || destination(DestinationState::Removed, 0, 500.0);
        let mut idle = with(KEEPS, Some(removed()));
        idle.probed
            .as_mut()
            .expect("it has probes")
            .dropped
            .is_watched = true;
        assert_eq!(kinds(&found(&idle)), [""; 0]);
        // With the probe away nobody knows, unless IPVS ends the flow itself.
        idle.probed
            .as_mut()
            .expect("it has probes")
            .dropped
            .is_watched = false;
        let unknown = found(&idle);
        assert_eq!(kinds(&unknown), [UDP_BLACKHOLED]);
        assert_eq!(unknown[0].severity, Severity::Warning);
        assert!(unknown[0].summary.contains("unknown"), "{unknown:?}");
        idle.probed = None;
        assert_eq!(
            kinds(&judge(&idle, &Settings::default()))[0],
            UDP_BLACKHOLED
        );
        let expires = with(KUBE_PROXY, Some(removed()));
        assert_eq!(kinds(&found(&expires)), [""; 0]);
    }

    fn traffic(datagrams: u64, answers: u64, has_answered: bool) -> Option<Traffic> {
        Some(Traffic {
            seconds: 10.0,
            flows: 2,
            datagrams,
            answers,
            has_answered,
        })
    }

    fn drained_for(seconds: f64, traffic: Option<Traffic>) -> Vec<Finding> {
        let mut destination = destination(DestinationState::Drained, 2, seconds);
        destination.traffic = traffic;
        found(&with(KUBE_PROXY, Some(destination)))
    }

    #[test]
    fn a_drained_server_that_answers_is_healthy_until_its_flows_last() {
        let answered = traffic(50, 50, true);
        assert_eq!(kinds(&drained_for(59.0, answered)), [""; 0]);
        let lasting = drained_for(60.0, answered);
        assert_eq!(kinds(&lasting), [UDP_DRAINED]);
        assert_eq!(lasting[0].severity, Severity::Warning);
        assert!(lasting[0].summary.contains("still answer"), "{lasting:?}");
        assert_eq!(lasting[0].victims, [], "they are served");
    }

    #[test]
    fn a_drained_server_that_does_not_answer_is_found_at_once() {
        let silent = drained_for(0.0, traffic(50, 0, false));
        assert_eq!(kinds(&silent), [UDP_DRAINED]);
        assert_eq!(
            silent[0].severity,
            Severity::Warning,
            "it may need no answer"
        );
        let named = format!("{:?} {:?}", silent[0].culprits, silent[0].victims);
        for name in [
            "10.96.0.10:53",
            "10.3.0.2:53",
            "10.1.0.2:5353",
            "2 of 6 flows",
        ] {
            assert!(named.contains(name), "{name} is not in {named}");
        }
        let stopped = drained_for(0.0, traffic(50, 0, true));
        assert_eq!(stopped[0].severity, Severity::Critical);
        assert_eq!(
            kinds(&drained_for(0.0, traffic(2, 0, false))),
            [""; 0],
            "too few"
        );
    }

    #[test]
    fn without_the_probe_only_what_lasts_is_found_and_answers_are_unknown() {
        assert_eq!(kinds(&drained_for(10.0, None)), [""; 0]);
        let lasting = drained_for(90.0, None);
        assert!(lasting[0].summary.contains("unknown"), "{lasting:?}");
    }

    #[test]
    fn idle_flows_to_drained_servers_are_healthy() {
        let idle = destination(DestinationState::Drained, 0, 500.0);
        assert_eq!(kinds(&found(&with(KUBE_PROXY, Some(idle)))), [""; 0]);
    }

    #[test]
    fn the_remedy_of_a_drained_flow_is_removal_and_never_without_the_setting() {
        let remedies = |settings| {
            let lasting = destination(DestinationState::Drained, 2, 90.0);
            found(&with(settings, Some(lasting)))[0].remedies.join("\n")
        };
        let text = remedies(KUBE_PROXY);
        assert!(
            text.contains("ipvsadm -d -u 10.96.0.10:53 -r 10.3.0.2:53"),
            "{text}"
        );
        assert!(!text.contains("sysctl -w"), "{text}");
        let text = remedies(KEEPS);
        let (before, after) = text.split_once("ipvsadm -d").expect("it is advised");
        assert!(before.contains("expire_nodest_conn=1"), "{before}{after}");
    }
}
