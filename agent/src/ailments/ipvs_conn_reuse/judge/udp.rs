//! UDP flows that IPVS keeps on a removed or a drained destination.

mod blackholed;
mod drained;

use std::net::SocketAddr;

pub(super) use self::{blackholed::blackholed, drained::drained};
use super::{NAMED, UDP_BLACKHOLED, UDP_DRAINED};
use crate::{ailments::ipvs_conn_reuse::measure::Reading, model::Evidence};

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

/// What the tests of both have in common.
#[cfg(test)]
mod fixtures {
    use super::{
        super::tests::{KUBE_PROXY, reading},
        *,
    };
    use crate::{
        ailments::ipvs_conn_reuse::{
            IpvsConnReuse, Settings,
            measure::{DestinationState, Flows, UdpDestination, VsSettings},
        },
        collector,
        model::Finding,
    };

    pub(super) const KEEPS: VsSettings = VsSettings {
        expire_nodest_conn: Some(0),
        ..KUBE_PROXY
    };

    pub(super) fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    pub(super) fn destination(
        state: DestinationState,
        in_use: u64,
        seconds: f64,
    ) -> UdpDestination {
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
            is_since_change: true,
            in_use_seconds: seconds,
            expires_seconds: 250,
            clients: vec![at("10.1.0.2:5353"), at("10.1.0.3:40000")],
            traffic: None,
        }
    }

    pub(super) fn with(settings: VsSettings, destination: Option<UdpDestination>) -> Reading {
        let mut reading = reading(&[], settings);
        reading.udp.destinations.extend(destination);
        reading
    }

    pub(super) fn found(reading: &Reading) -> Vec<Finding> {
        collector::judged::<IpvsConnReuse>(reading, &Settings::default()).1
    }
}
