//! What is known of flows from one look at the list of connections to the next.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{DestinationState, Flows, NAMED, UdpDestination};
use crate::kernel::ipvs::Connection;

/// When a flow expires is listed in whole seconds, and a list takes a moment to read.
const GRAIN: Duration = Duration::from_secs(2);

/// Network namespace, service and destination.
type Place = (u32, SocketAddr, SocketAddr);

/// The flows and destinations of the last look.
#[derive(Debug)]
pub(super) struct Memory {
    flows: HashMap<(Place, SocketAddr), Flow>,
    places: HashMap<Place, Since>,
    /// For how long a flow counts as in use after its timer was seen to restart.
    window: Duration,
    /// Flows that are remembered.
    capacity: usize,
    looks: u64,
    /// Whether destinations that are new to it may have been in their state for long.
    is_first: bool,
}

/// A flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// When it was first seen.
    first: Instant,
    /// When it would expire, as of when its timer was last seen to restart.
    expires: Instant,
    /// When its timer was last seen to have restarted.
    restarted: Option<Instant>,
    look: u64,
}

/// A destination.
#[derive(Clone, Copy, Debug)]
struct Since {
    state: DestinationState,
    first: Instant,
    is_since_change: bool,
    in_use: Option<Instant>,
    look: u64,
}

/// Whether a flow is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Active,
    Idle,
    Unknown,
}

impl Memory {
    pub(super) fn new(window: Duration, capacity: usize) -> Self {
        Self {
            flows: HashMap::new(),
            places: HashMap::new(),
            window,
            capacity,
            looks: 0,
            is_first: false,
        }
    }

    /// A look at all namespaces begins. `is_first`: the agent did not know them before.
    pub(super) fn begin(&mut self, is_first: bool) {
        self.looks += 1;
        self.is_first = is_first;
    }

    /// The look is over: what it has not seen is gone.
    pub(super) fn end(&mut self) {
        let looks = self.looks;
        self.flows.retain(|_, flow| flow.look == looks);
        self.places.retain(|_, place| place.look == looks);
    }

    /// Takes in the flows of a namespace that lead to drained or removed destinations.
    pub(super) fn look(
        &mut self,
        netns: u32,
        now: Instant,
        listed: &[(Connection, DestinationState)],
    ) -> Vec<UdpDestination> {
        let mut found: HashMap<Place, UdpDestination> = HashMap::new();
        for (connection, state) in listed {
            let place = (netns, connection.service, connection.destination);
            let since = self.place(place, *state, now);
            let used = self.flow(place, since, connection, now);
            let destination = found
                .entry(place)
                .or_insert_with(|| nothing_of(place, since, now));
            destination.add(connection, used);
        }
        for (place, destination) in &mut found {
            if let Some(since) = self.places.get_mut(place) {
                since.in_use = (destination.flows.in_use > 0).then(|| since.in_use.unwrap_or(now));
                let in_use = since.in_use.map(|it| now.duration_since(it));
                destination.in_use_seconds = in_use.unwrap_or_default().as_secs_f64();
            }
        }
        found.into_values().collect()
    }

    /// Since when a destination has been in its state.
    fn place(&mut self, place: Place, state: DestinationState, now: Instant) -> Since {
        let fresh = Since {
            state,
            first: now,
            is_since_change: !self.is_first,
            in_use: None,
            look: self.looks,
        };
        let known = self.places.entry(place).or_insert(fresh);
        if known.state != state {
            *known = fresh;
        }
        known.look = self.looks;
        *known
    }

    fn flow(&mut self, place: Place, since: Since, listed: &Connection, now: Instant) -> Use {
        if since.state == DestinationState::Removed {
            // IPVS restarts no timer of these, so the list does not tell.
            return Use::Unknown;
        }
        let expires = now + Duration::from_secs(listed.expires);
        let is_full = self.flows.len() >= self.capacity;
        let key = (place, listed.client);
        if is_full && !self.flows.contains_key(&key) {
            return Use::Unknown;
        }
        let known = self.flows.entry(key).or_insert(Flow {
            first: now,
            expires,
            // One that came while its destination was drained is in use: it is new.
            restarted: (since.first < now).then_some(now),
            look: self.looks,
        });
        known.look = self.looks;
        let moved = expires > known.expires + GRAIN || known.expires > expires + GRAIN;
        if moved {
            known.expires = expires;
            known.restarted = Some(now);
        }
        let lately = |it: Instant| now.duration_since(it) <= self.window;
        match known.restarted {
            Some(restarted) if lately(restarted) => Use::Active,
            _ if lately(known.first) => Use::Unknown,
            _ => Use::Idle,
        }
    }
}

fn nothing_of(place: Place, since: Since, now: Instant) -> UdpDestination {
    let (netns, service, destination) = place;
    UdpDestination {
        netns,
        service,
        destination,
        state: since.state,
        flows: Flows::default(),
        seconds: now.duration_since(since.first).as_secs_f64(),
        is_since_change: since.is_since_change,
        in_use_seconds: 0.0,
        expires_seconds: 0,
        clients: Vec::new(),
        traffic: None,
    }
}

impl UdpDestination {
    fn add(&mut self, connection: &Connection, used: Use) {
        match used {
            Use::Active => self.flows.in_use += 1,
            Use::Idle => self.flows.idle += 1,
            Use::Unknown => self.flows.unknown += 1,
        }
        self.expires_seconds = self.expires_seconds.max(connection.expires);
        if used == Use::Active {
            self.clients.insert(0, connection.client);
        } else if self.clients.len() < NAMED {
            self.clients.push(connection.client);
        }
        self.clients.truncate(NAMED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn connection(port: u16, expires: u64) -> Connection {
        Connection {
            client: SocketAddr::from(([10, 1, 0, 2], port)),
            service: "10.96.0.10:53".parse().expect("an address"),
            destination: "10.3.0.2:53".parse().expect("an address"),
            state: crate::kernel::ipvs::State::Other,
            expires,
        }
    }

    fn look(
        memory: &mut Memory,
        now: Instant,
        state: DestinationState,
        flows: &[(u16, u64)],
    ) -> Option<UdpDestination> {
        memory.begin(false);
        let listed = flows
            .iter()
            .map(|(port, expires)| (connection(*port, *expires), state));
        let found = memory.look(7, now, &listed.collect::<Vec<_>>());
        memory.end();
        found.into_iter().next()
    }

    /// Looks 10 s apart at one flow, with when it expires each time.
    fn looks(state: DestinationState, expires: &[u64]) -> Flows {
        let begin = Instant::now();
        let mut memory = Memory::new(WINDOW, 100);
        let times = (0..).map(|number| begin + Duration::from_secs(10 * number));
        let looks = times.zip(expires).map(|(now, expires)| {
            look(&mut memory, now, state, &[(20_000, *expires)]).expect("it is listed")
        });
        looks.last().expect("there is a look").flows
    }

    const IN_USE: Flows = Flows {
        in_use: 1,
        idle: 0,
        unknown: 0,
    };
    const IDLE: Flows = Flows {
        in_use: 0,
        idle: 1,
        unknown: 0,
    };
    const UNKNOWN: Flows = Flows {
        in_use: 0,
        idle: 0,
        unknown: 1,
    };

    #[test]
    fn a_flow_is_in_use_where_its_timer_restarts_and_idle_where_it_runs_down() {
        let drained = DestinationState::Drained;
        assert_eq!(looks(drained, &[299]), UNKNOWN);
        assert_eq!(looks(drained, &[299, 299]), IN_USE);
        assert_eq!(looks(drained, &[299, 289]), UNKNOWN, "it may come again");
        assert_eq!(looks(drained, &[299, 290, 280]), UNKNOWN, "rounded");
        let down = [299, 289, 279, 269, 259, 249, 239, 229];
        assert_eq!(looks(drained, &down), IDLE);
        assert_eq!(
            looks(drained, &[299, 1, 0]),
            IN_USE,
            "the timeout was lowered"
        );
    }

    #[test]
    fn of_a_removed_destination_the_list_does_not_tell() {
        let down = [299, 289, 279, 269, 259, 249, 239, 229];
        assert_eq!(looks(DestinationState::Removed, &down), UNKNOWN);
    }

    #[test]
    fn a_flow_that_comes_after_the_drain_is_in_use_and_one_that_was_there_is_not() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(10);
        let mut memory = Memory::new(WINDOW, 100);
        let drained = DestinationState::Drained;
        look(&mut memory, begin, drained, &[(20_000, 299)]);
        let found = look(&mut memory, later, drained, &[(20_000, 289), (20_001, 295)]);
        let flows = found.expect("they are listed").flows;
        assert_eq!((flows.in_use, flows.unknown), (1, 1));
    }

    #[test]
    fn since_when_is_forgotten_when_flows_stop_or_the_destination_comes_back() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut memory = Memory::new(WINDOW, 100);
        let mut at_10_s = |seconds, expires: &[(u16, u64)]| {
            look(&mut memory, at(seconds), DestinationState::Drained, expires)
        };
        let busy = [(20_000, 299)];
        for seconds in [0, 10, 20] {
            at_10_s(seconds, &busy);
        }
        let found = at_10_s(30, &busy).expect("it is listed");
        assert_eq!((found.seconds, found.in_use_seconds), (30.0, 20.0));
        at_10_s(40, &[]);
        let found = at_10_s(50, &busy).expect("it is listed");
        assert_eq!((found.seconds, found.in_use_seconds), (0.0, 0.0));
    }

    #[test]
    fn flows_beyond_the_capacity_are_counted_and_not_told() {
        let begin = Instant::now();
        let mut memory = Memory::new(WINDOW, 1);
        let busy = [(20_000, 299), (20_001, 299)];
        for seconds in [0, 10] {
            let now = begin + Duration::from_secs(seconds);
            let found = look(&mut memory, now, DestinationState::Drained, &busy);
            assert_eq!(found.expect("they are listed").flows.total(), 2);
        }
        let now = begin + Duration::from_secs(20);
        let found = look(&mut memory, now, DestinationState::Drained, &busy);
        let flows = found.expect("they are listed").flows;
        assert_eq!((flows.in_use, flows.unknown), (1, 1));
    }
}
