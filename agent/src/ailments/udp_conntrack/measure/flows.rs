//! Who makes entries.

use std::{net::IpAddr, time::Instant};

use ebpf::udp_conntrack::{Flow, FlowCounts};
use serde::{Deserialize, Serialize};

use crate::ailments::{address::address, ranking::Ranking};

/// Counts of one flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowReading {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Destination port; 0 for all from 32,768 on.
    pub port: u16,
    /// Source address.
    pub source: IpAddr,
    /// Entries made.
    pub created: u64,
}

/// What is known of all flows: the entries that each made.
#[derive(Debug)]
pub(super) struct Flows(Ranking<Flow, 1>);

impl Flows {
    pub(super) fn new(places: usize) -> Self {
        Self(Ranking::new(places))
    }

    /// Takes in the kernel's map as it is now, and returns the flows that made most
    /// since the last time.
    pub(super) fn update(
        &mut self,
        now: Instant,
        map: impl Iterator<Item = (Flow, FlowCounts)>,
    ) -> Vec<FlowReading> {
        let map = map.map(|(flow, counts)| (flow, [counts.created]));
        self.0.update(now, map).into_iter().map(reading).collect()
    }

    /// The flows that metrics show.
    pub(super) fn shown(&self) -> Vec<FlowReading> {
        self.0.shown().into_iter().map(reading).collect()
    }

    /// Creations in no flow that was ever shown, out of all that there were.
    pub(super) fn other(&mut self, created: u64) -> u64 {
        let [other] = self.0.other([created]);
        other
    }
}

fn reading((flow, [created]): (Flow, [u64; 1])) -> FlowReading {
    FlowReading {
        netns: flow.netns,
        port: flow.port,
        source: address(flow.family, flow.source),
        created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_as_its_family_says() {
        let mut source = [0; 16];
        source[..4].copy_from_slice(&[10, 0, 0, 1]);
        let flow = Flow {
            netns: 1,
            family: libc::AF_INET as u16,
            port: 53,
            source,
        };
        let counts = FlowCounts {
            created: 5,
            ..FlowCounts::default()
        };
        let top = Flows::new(10).update(Instant::now(), [(flow, counts)].into_iter());
        let wanted = FlowReading {
            netns: 1,
            port: 53,
            source: IpAddr::from([10, 0, 0, 1]),
            created: 5,
        };
        assert_eq!(top, [wanted]);
    }
}
