//! IPVS drops UDP datagrams, as their destination is removed.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{NAMED, UDP_BLACKHOLED, flows_on, value};
use crate::{
    ailments::ipvs_conn_reuse::{
        advice,
        measure::{DestinationState, DroppedFlow, DroppedReading, ProbedReading, Reading},
    },
    model::{Finding, Party, Severity},
};

/// IPVS drops each datagram to a removed destination, unless it is set to expire the flow.
pub(in super::super) fn blackholed(reading: &Reading) -> Option<Finding> {
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
             on servers that were removed, and no server answers them"
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{
                judge,
                tests::{KUBE_PROXY, kinds},
            },
            fixtures::{KEEPS, at, destination, found, with},
        },
        *,
    };
    use crate::ailments::ipvs_conn_reuse::{Settings, measure::VsSettings};

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
}
