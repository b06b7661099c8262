//! UDP flows that IPVS keeps on a destination that is drained or removed.
//!
//! IPVS looks a datagram up by its client's port before it asks for a service (`ip_vs_in_hook`,
//! ip_vs_core.c). It sends the datagram on to a drained destination and restarts the flow's
//! timer. It drops the datagram to a removed destination and leaves the timer alone, so that
//! the list of connections tells which flows to drained destinations are in use, and of removed
//! destinations tells only that flows stand.

mod counts;
mod flows;
mod turns;
mod watch;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

pub(super) use self::{counts::Datagrams, turns::Turns, watch::Watch};

/// Clients that a reading names for each destination.
const NAMED: usize = 5;

/// Destinations that a reading names.
const DESTINATIONS: usize = 50;

/// The UDP flows of all namespaces that are on drained or removed destinations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UdpReading {
    /// Where they lead, those in use first.
    pub destinations: Vec<UdpDestination>,
    /// The flows to further drained destinations.
    #[serde(default)]
    pub other_drained: Flows,
    /// The flows to further removed destinations.
    #[serde(default)]
    pub other_removed: Flows,
    /// Network namespaces with such flows, or perhaps with such flows, that could not be listed
    /// to the end, and why.
    pub unread: BTreeMap<u32, String>,
}

/// A destination with flows that IPVS keeps on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UdpDestination {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Virtual address and port, of UDP.
    pub service: SocketAddr,
    /// The destination.
    pub destination: SocketAddr,
    /// What became of it.
    pub state: DestinationState,
    /// Its flows.
    pub flows: Flows,
    /// For how long the agent has seen it in this state, seconds.
    pub seconds: f64,
    /// Whether that is since the change: it was in this state before the agent came otherwise.
    pub is_since_change: bool,
    /// For how long without a break the agent has seen flows to it in use, seconds.
    pub in_use_seconds: f64,
    /// When the last of its flows expires without another datagram, seconds from now.
    pub expires_seconds: u64,
    /// Clients of some flows, first those in use.
    pub clients: Vec<SocketAddr>,
    /// What the probe `answers` counted last.
    pub traffic: Option<Traffic>,
}

/// What became of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// Its weight is 0, and its answers pass IPVS.
    Drained,
    /// Its weight is 0, and its answers take another way: direct routing, or a tunnel.
    DrainedUntranslated,
    /// Its service does not have it any more, or is gone.
    Removed,
}

impl DestinationState {
    /// Whether its service still has it.
    pub fn is_drained(self) -> bool {
        match self {
            Self::Drained | Self::DrainedUntranslated => true,
            Self::Removed => false,
        }
    }
}

/// Flows, by whether somebody uses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Datagrams came lately.
    pub in_use: u64,
    /// None came.
    pub idle: u64,
    /// It cannot be told, or not yet.
    pub unknown: u64,
}

impl Flows {
    /// All that stand.
    pub fn total(&self) -> u64 {
        self.in_use + self.idle + self.unknown
    }

    /// Both together.
    fn plus(self, other: Self) -> Self {
        Self {
            in_use: self.in_use + other.in_use,
            idle: self.idle + other.idle,
            unknown: self.unknown + other.unknown,
        }
    }
}

/// Datagrams of the flows to one drained destination, in one turn of the probe `answers`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// How long the turn was, seconds.
    pub seconds: f64,
    /// Flows on which a client sent a datagram.
    pub flows: u64,
    /// Datagrams of clients.
    pub datagrams: u64,
    /// Datagrams of the destination.
    pub answers: u64,
    /// Whether it answered since the agent first traced it, in this turn or earlier.
    pub has_answered: bool,
}

/// What the probe `kept` saw of UDP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DroppedReading {
    /// Whether the probe was attached when this reading was taken, so that it would have seen
    /// such datagrams.
    pub is_watched: bool,
    /// Datagrams to removed destinations that IPVS dropped since the agent began.
    pub total: u64,
    /// Those of them that it dropped lately.
    pub recent: u64,
    /// Flows that they were of.
    pub recent_flows: u64,
    /// Some of these flows, most datagrams first.
    pub top: Vec<DroppedFlow>,
}

/// A flow that lost datagrams lately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DroppedFlow {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Virtual address and port, of UDP.
    pub service: SocketAddr,
    /// The destination that is removed.
    pub destination: SocketAddr,
    /// Address and port of the client.
    pub client: SocketAddr,
    /// Datagrams that IPVS dropped lately.
    pub datagrams: u64,
    /// Since the first of them that the agent saw, seconds.
    pub seconds: f64,
}

impl UdpReading {
    /// Takes in which of the flows to removed destinations lost datagrams lately, where the
    /// probe that sees it is attached.
    pub(super) fn settle(&mut self, dropped: &DroppedReading) {
        if !dropped.is_watched {
            return;
        }
        let removed = |it: &&mut UdpDestination| it.state == DestinationState::Removed;
        for destination in self.destinations.iter_mut().filter(removed) {
            let of = |flow: &&DroppedFlow| {
                (flow.netns, flow.service, flow.destination)
                    == (
                        destination.netns,
                        destination.service,
                        destination.destination,
                    )
            };
            let total = destination.flows.total();
            let in_use = (dropped.top.iter().filter(of).count() as u64).min(total);
            // Where not all are named, the others may be of any destination.
            let all_named = dropped.top.len() as u64 == dropped.recent_flows;
            let rest = total - in_use;
            destination.flows = Flows {
                in_use,
                idle: if all_named { rest } else { 0 },
                unknown: if all_named { 0 } else { rest },
            };
        }
    }

    /// Adds to a destination what was counted of it in the last turn of the probe `answers`. Flows
    /// that sent are in use, also if the list was not read twice yet.
    fn describe(destination: &mut UdpDestination, traffic: Traffic, senders: &[SocketAddr]) {
        let flows = &mut destination.flows;
        let more = traffic.flows.saturating_sub(flows.in_use);
        let more = more.min(flows.unknown);
        if more > 0 {
            flows.in_use += more;
            flows.unknown -= more;
            destination.clients.splice(0..0, senders.iter().copied());
            let mut named = BTreeSet::new();
            destination.clients.retain(|it| named.insert(*it));
            destination.clients.truncate(NAMED);
        }
        destination.traffic = Some(traffic);
    }

    /// Flows by the state of their destination: drained, then removed.
    pub fn flows(&self) -> [(&'static str, Flows); 2] {
        let sum = |drained: bool, other: Flows| {
            let of = self.destinations.iter();
            let of = of.filter(|it| it.state.is_drained() == drained);
            of.fold(other, |sum, it| sum.plus(it.flows))
        };
        [
            ("drained", sum(true, self.other_drained)),
            ("removed", sum(false, self.other_removed)),
        ]
    }

    /// The listed flows of a namespace to drained destinations.
    pub(super) fn drained_in(&self, netns: u32) -> u64 {
        let of = self.destinations.iter();
        let of = of.filter(|it| it.netns == netns && it.state.is_drained());
        of.map(|it| it.flows.total()).sum()
    }

    /// Of these destinations, those in use first; further ones are counted alone.
    fn of(mut destinations: Vec<UdpDestination>, unread: BTreeMap<u32, String>) -> Self {
        let most = |it: &UdpDestination| (it.flows.in_use, it.flows.total());
        destinations.sort_by_key(|it| (Reverse(most(it)), it.destination));
        let others = destinations.split_off(destinations.len().min(DESTINATIONS));
        let mut reading = Self {
            destinations,
            unread,
            ..Self::default()
        };
        for other in others {
            let sum = if other.state.is_drained() {
                &mut reading.other_drained
            } else {
                &mut reading.other_removed
            };
            *sum = sum.plus(other.flows);
        }
        reading
    }

    /// Whether it is worth to trace answers: some flow to a drained destination may be in use.
    pub(super) fn wants_answers(&self) -> bool {
        self.destinations.iter().any(|it| {
            it.state == DestinationState::Drained && it.flows.in_use + it.flows.unknown > 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(number: u16, state: DestinationState, in_use: u64) -> UdpDestination {
        UdpDestination {
            netns: 7,
            service: "10.96.0.10:53".parse().expect("an address"),
            destination: SocketAddr::from(([10, 3, 0, 2], number)),
            state,
            flows: Flows {
                in_use,
                idle: 1,
                unknown: 0,
            },
            seconds: 0.0,
            is_since_change: true,
            in_use_seconds: 0.0,
            expires_seconds: 299,
            clients: Vec::new(),
            traffic: None,
        }
    }

    #[test]
    fn all_flows_are_counted_and_the_destinations_in_use_are_named() {
        let idle = (0..100).map(|number| destination(number, DestinationState::Removed, 0));
        let busy = destination(999, DestinationState::Drained, 3);
        let reading = UdpReading::of(idle.chain([busy]).collect(), BTreeMap::new());
        assert_eq!(reading.destinations.len(), DESTINATIONS);
        assert_eq!(reading.destinations[0].flows.in_use, 3);
        let [(_, drained), (_, removed)] = reading.flows();
        assert_eq!((drained.total(), removed.total()), (4, 100));
        assert_eq!((reading.drained_in(7), reading.drained_in(8)), (4, 0));
    }

    #[test]
    fn a_flow_to_a_removed_destination_is_in_use_where_it_loses_datagrams_and_else_idle() {
        let mut removed = destination(53, DestinationState::Removed, 0);
        removed.flows = Flows {
            unknown: 2,
            ..Flows::default()
        };
        let flow = DroppedFlow {
            netns: 7,
            service: removed.service,
            destination: removed.destination,
            client: "10.1.0.2:9".parse().expect("an address"),
            datagrams: 5,
            seconds: 1.0,
        };
        let mut reading = UdpReading::of(vec![removed], BTreeMap::new());
        let unwatched = DroppedReading::default();
        reading.settle(&unwatched);
        assert_eq!(reading.flows()[1].1.unknown, 2, "nobody has looked");
        reading.settle(&DroppedReading {
            is_watched: true,
            recent: 5,
            recent_flows: 1,
            top: vec![flow],
            ..unwatched
        });
        let flows = reading.flows()[1].1;
        assert_eq!((flows.in_use, flows.idle, flows.unknown), (1, 1, 0));
    }
}
