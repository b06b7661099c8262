//! What the probes count of UDP datagrams, by flow.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use ebpf::ipvs_conn_reuse::{UdpCounts, UdpEvent, UdpFlow};

use super::{DroppedFlow, DroppedReading, Traffic, UdpDestination};
use crate::{
    ailments::{address::address, ipvs_conn_reuse::measure::UdpReading},
    kernel::bpf,
    time::monotonic,
};

/// Flows that a reading names.
const NAMED: usize = 50;

/// A flow or a destination needs this long to be judged by its traffic.
const SHORTEST_TURN: Duration = Duration::from_secs(3);

/// The map of flows, and what it said before.
#[derive(Debug)]
pub(in super::super) struct Datagrams {
    map: bpf::HashMap<UdpFlow, UdpCounts>,
    history: History,
}

/// What the map said.
#[derive(Debug)]
struct History {
    window: Duration,
    last: HashMap<UdpFlow, UdpCounts>,
    /// Datagrams dropped in each of the last ticks, by flow, with when the tick began.
    dropped: VecDeque<(Instant, HashMap<UdpFlow, u64>)>,
    /// When the turn of the probe `answers` began, and what the map said then.
    turn: Option<(Instant, HashMap<UdpFlow, UdpCounts>)>,
    traffic: HashMap<Place, Seen>,
}

/// What came to a destination and from it in a turn.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    traffic: Traffic,
    /// Some of the clients that sent.
    clients: Vec<SocketAddr>,
}

/// Network namespace, service and destination.
type Place = (u32, SocketAddr, SocketAddr);

impl Datagrams {
    pub(in super::super) fn new(map: bpf::HashMap<UdpFlow, UdpCounts>, window: Duration) -> Self {
        Self {
            map,
            history: History {
                window,
                last: HashMap::new(),
                dropped: VecDeque::new(),
                turn: None,
                traffic: HashMap::new(),
            },
        }
    }

    /// Takes in the map as it is now. `began`: when it was read before, `total`: datagrams that
    /// were dropped in all.
    pub(in super::super) fn read(
        &mut self,
        began: Instant,
        now: Instant,
        total: u64,
    ) -> anyhow::Result<DroppedReading> {
        let map = self.map.read()?.into_iter().collect();
        self.history.push(began, now, map);
        Ok(DroppedReading {
            total,
            ..self.history.dropped(monotonic())
        })
    }

    /// The probe `answers` has a turn from now on, or none.
    pub(in super::super) fn turn(&mut self, is_on: bool, now: Instant) {
        match (is_on, &self.history.turn) {
            (true, None) => self.history.turn = Some((now, self.history.last.clone())),
            (false, Some(_)) => self.history.turn = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Adds to each drained destination what was counted of it last, and forgets the others.
    pub(in super::super) fn describe(&mut self, udp: &mut UdpReading) {
        let places: Vec<_> = udp.destinations.iter().map(place).collect();
        self.history.traffic.retain(|it, _| places.contains(it));
        for destination in &mut udp.destinations {
            if let Some(seen) = self.history.traffic.get(&place(destination)) {
                UdpReading::describe(destination, seen.traffic, &seen.clients);
            }
        }
    }
}

impl History {
    fn push(&mut self, began: Instant, now: Instant, map: HashMap<UdpFlow, UdpCounts>) {
        let dropped = map.iter().filter_map(|(flow, counts)| {
            let before = of(self.last.get(flow), UdpEvent::Dropped);
            let more = since(of(Some(counts), UdpEvent::Dropped), before);
            (more > 0).then_some((*flow, more))
        });
        let dropped = dropped.collect();
        self.dropped.push_back((began, dropped));
        let old = |tick: &(Instant, _)| now.duration_since(tick.0) > self.window;
        while self.dropped.len() > 1 && self.dropped.front().is_some_and(old) {
            self.dropped.pop_front();
        }
        if let Some((began, before)) = &self.turn {
            let length = now.duration_since(*began);
            if length >= SHORTEST_TURN {
                for (place, mut seen) in traffic(before, &map, length) {
                    let earlier = self.traffic.get(&place);
                    let has_answered = earlier.is_some_and(|it| it.traffic.has_answered);
                    seen.traffic.has_answered |= has_answered;
                    self.traffic.insert(place, seen);
                }
            }
        }
        self.last = map;
    }

    /// Flows that lost datagrams lately. `now` is the kernel's monotonic clock.
    fn dropped(&self, now: Duration) -> DroppedReading {
        let mut sums: HashMap<UdpFlow, u64> = HashMap::new();
        for (flow, datagrams) in self.dropped.iter().flat_map(|(_, tick)| tick) {
            *sums.entry(*flow).or_default() += datagrams;
        }
        let mut flows: Vec<_> = sums.into_iter().collect();
        flows.sort_by_key(|(flow, datagrams)| (std::cmp::Reverse(*datagrams), *flow));
        let named = flows.iter().take(NAMED).map(|(flow, datagrams)| {
            let since_ns = self.last.get(flow).map(|counts| counts.since_ns);
            let since = since_ns.map_or(now, Duration::from_nanos);
            let (netns, service, destination) = place_of(flow);
            DroppedFlow {
                netns,
                service,
                destination,
                client: client_of(flow),
                datagrams: *datagrams,
                seconds: now.saturating_sub(since).as_secs_f64(),
            }
        });
        DroppedReading {
            is_watched: false,
            total: 0,
            recent: flows.iter().map(|(_, datagrams)| datagrams).sum(),
            recent_flows: flows.len() as u64,
            top: named.collect(),
        }
    }
}

/// What came in a turn, by destination.
fn traffic(
    before: &HashMap<UdpFlow, UdpCounts>,
    now: &HashMap<UdpFlow, UdpCounts>,
    length: Duration,
) -> HashMap<Place, Seen> {
    let nothing = Traffic {
        seconds: length.as_secs_f64(),
        flows: 0,
        datagrams: 0,
        answers: 0,
        has_answered: false,
    };
    let mut sums: HashMap<Place, Seen> = HashMap::new();
    for (flow, counts) in now {
        let more = |event| since(of(Some(counts), event), of(before.get(flow), event));
        let seen = sums.entry(place_of(flow)).or_insert_with(|| Seen {
            traffic: nothing,
            clients: Vec::new(),
        });
        let sent = more(UdpEvent::Sent);
        if sent > 0 && seen.clients.len() < super::NAMED {
            seen.clients.push(client_of(flow));
        }
        let sum = &mut seen.traffic;
        sum.flows += u64::from(sent > 0);
        sum.datagrams += sent;
        sum.answers += more(UdpEvent::Answered);
        sum.has_answered |= of(Some(counts), UdpEvent::Answered) > 0;
    }
    sums
}

fn of(counts: Option<&UdpCounts>, event: UdpEvent) -> u64 {
    counts.map_or(0, |it| it.datagrams[event as usize])
}

/// A full map forgets a flow, which begins at 0 when it comes back.
fn since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn place(destination: &UdpDestination) -> Place {
    let UdpDestination {
        netns,
        service,
        destination,
        ..
    } = destination;
    (*netns, *service, *destination)
}

fn place_of(flow: &UdpFlow) -> Place {
    let service = address(flow.tuple.family, flow.tuple.virtual_address);
    let destination = address(flow.destination_family, flow.destination);
    (
        flow.tuple.netns,
        SocketAddr::new(service, flow.tuple.virtual_port),
        SocketAddr::new(destination, flow.destination_port),
    )
}

fn client_of(flow: &UdpFlow) -> SocketAddr {
    let client = address(flow.tuple.family, flow.tuple.client);
    SocketAddr::new(client, flow.tuple.client_port)
}

#[cfg(test)]
mod tests {
    use ebpf::ipvs_conn_reuse::Tuple;

    use super::{
        super::{DestinationState, Flows},
        *,
    };

    fn bytes(address: [u8; 4]) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address);
        bytes
    }

    fn flow(client_port: u16) -> UdpFlow {
        UdpFlow {
            tuple: Tuple {
                netns: 7,
                family: 2,
                client_port,
                virtual_port: 53,
                unused: 0,
                client: bytes([10, 1, 0, 2]),
                virtual_address: bytes([10, 96, 0, 10]),
            },
            destination_family: 2,
            destination_port: 53,
            destination: bytes([10, 3, 0, 2]),
        }
    }

    fn counts(dropped: u64, sent: u64, answered: u64) -> UdpCounts {
        UdpCounts {
            datagrams: [dropped, sent, answered],
            since_ns: 5_000_000_000,
            last_ns: 9_000_000_000,
        }
    }

    fn history() -> History {
        History {
            window: Duration::from_secs(60),
            last: HashMap::new(),
            dropped: VecDeque::new(),
            turn: None,
            traffic: HashMap::new(),
        }
    }

    #[test]
    fn what_was_dropped_lately_is_named_with_since_when_and_then_forgotten() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut history = history();
        let map = |of_first: u64, of_second: u64| {
            let counts = [
                (flow(1), counts(of_first, 0, 0)),
                (flow(2), counts(of_second, 0, 0)),
            ];
            HashMap::from(counts)
        };
        history.push(at(0), at(10), map(50, 1));
        history.push(at(10), at(20), map(100, 1));
        let dropped = history.dropped(Duration::from_secs(12));
        assert_eq!((dropped.recent, dropped.recent_flows), (101, 2));
        let first = &dropped.top[0];
        assert_eq!((first.datagrams, first.seconds), (100, 7.0));
        assert_eq!(first.client.to_string(), "10.1.0.2:1");
        assert_eq!(first.destination.to_string(), "10.3.0.2:53");
        history.push(at(80), at(90), map(100, 1));
        assert_eq!(history.dropped(Duration::from_secs(92)).recent, 0);
    }

    #[test]
    fn traffic_is_of_the_turn_alone_but_whether_it_ever_answered_is_not() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut history = history();
        let map = |sent, answered| HashMap::from([(flow(1), counts(0, sent, answered))]);
        let of = |history: &History| history.traffic.values().next().map(|it| it.traffic);
        history.push(at(0), at(10), map(7, 7));
        assert_eq!(of(&history), None, "no turn, nothing counted");
        history.turn = Some((at(10), history.last.clone()));
        history.push(at(10), at(20), map(57, 7));
        let traffic = of(&history).expect("a turn");
        assert_eq!((traffic.datagrams, traffic.answers), (50, 0));
        assert_eq!(traffic.flows, 1);
        assert!(traffic.has_answered, "it did before");
        history.turn = None;
        history.push(at(20), at(30), map(57, 7));
        assert_eq!(of(&history), Some(traffic), "the last turn's stays");
    }

    #[test]
    fn a_flow_that_sent_in_a_turn_is_in_use_before_the_list_tells() {
        let mut destination = UdpDestination {
            netns: 7,
            service: "10.96.0.10:53".parse().expect("an address"),
            destination: "10.3.0.2:53".parse().expect("an address"),
            state: DestinationState::Drained,
            flows: Flows {
                in_use: 0,
                idle: 0,
                unknown: 2,
            },
            seconds: 0.0,
            is_since_change: true,
            in_use_seconds: 0.0,
            expires_seconds: 299,
            clients: vec!["10.1.0.2:9".parse().expect("an address")],
            traffic: None,
        };
        let map = HashMap::from([(flow(1), counts(0, 5, 5)), (flow(9), counts(0, 0, 1))]);
        let seen = traffic(&HashMap::new(), &map, Duration::from_secs(10));
        let seen = &seen[&place(&destination)];
        UdpReading::describe(&mut destination, seen.traffic, &seen.clients);
        assert_eq!(
            (destination.flows.in_use, destination.flows.unknown),
            (1, 1)
        );
        assert_eq!(destination.clients[0].port(), 1, "who sent comes first");
    }

    #[test]
    fn a_turn_that_has_just_begun_tells_nothing() {
        let begin = Instant::now();
        let mut history = history();
        history.turn = Some((begin, HashMap::new()));
        let map = HashMap::from([(flow(1), counts(0, 5, 0))]);
        history.push(begin, begin + Duration::from_secs(1), map);
        assert!(history.traffic.is_empty());
    }
}
