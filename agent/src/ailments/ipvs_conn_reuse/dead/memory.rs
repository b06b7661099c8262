//! What is remembered of connections from one pass to the next, so that not each is
//! looked up in conntrack each time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::kernel::{
    conntrack::TcpTuple,
    ipvs::{Connection, State},
};

/// What IPVS says of when it lets go is in whole seconds.
const GRAIN: Duration = Duration::from_secs(1);

/// The connections that the last pass has seen.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: HashMap<TcpTuple, Known>,
    passes: u64,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    state: State,
    /// Since when it has been in that state.
    pub(super) since: Instant,
    /// When IPVS expires it without another packet.
    lets_go: Instant,
    /// Whether there is nothing to be done about it.
    pub(super) is_settled: bool,
    /// The last pass that has seen it.
    pass: u64,
}

impl Memory {
    /// A pass begins.
    pub(super) fn begin(&mut self) {
        self.passes += 1;
    }

    /// What was known of a connection, if it is still the same in the same state.
    pub(super) fn recall(&mut self, connection: &Connection, now: Instant) -> Known {
        let lets_go = now + Duration::from_secs(connection.expires);
        let fresh = Known {
            state: connection.state,
            since: now,
            lets_go,
            is_settled: false,
            pass: self.passes,
        };
        let known = self.known.entry(tuple(connection)).or_insert(fresh);
        if known.state != connection.state {
            *known = fresh;
        }
        // A packet has come since, perhaps of another connection on the same port.
        let moved = lets_go > known.lets_go + GRAIN || known.lets_go > lets_go + GRAIN;
        known.is_settled &= !moved;
        known.lets_go = lets_go;
        known.pass = self.passes;
        *known
    }

    /// There is nothing more to be done about it.
    pub(super) fn settle(&mut self, connection: &Connection) {
        if let Some(known) = self.known.get_mut(&tuple(connection)) {
            known.is_settled = true;
        }
    }

    /// The pass has seen all: the others are gone.
    pub(super) fn end(&mut self) {
        let pass = self.passes;
        self.known.retain(|_, known| known.pass == pass);
    }
}

/// As conntrack knows it.
pub(super) fn tuple(connection: &Connection) -> TcpTuple {
    TcpTuple {
        client: connection.client,
        server: connection.service,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(state: State, expires: u64) -> Connection {
        Connection {
            client: "10.1.0.2:20000".parse().unwrap(),
            service: "10.96.0.1:8000".parse().unwrap(),
            destination: "10.3.0.2:7000".parse().unwrap(),
            state,
            expires,
        }
    }

    fn pass(memory: &mut Memory, connection: &Connection, now: Instant) -> Known {
        memory.begin();
        let known = memory.recall(connection, now);
        memory.end();
        known
    }

    #[test]
    fn what_is_settled_stays_so_until_a_packet_comes() {
        let begin = Instant::now();
        let mut memory = Memory::default();
        let first = connection(State::TimeWait, 120);
        assert!(!pass(&mut memory, &first, begin).is_settled);
        memory.settle(&first);
        let later = begin + Duration::from_secs(10);
        let same = connection(State::TimeWait, 110);
        let known = pass(&mut memory, &same, later);
        assert!(known.is_settled);
        assert_eq!(known.since, begin);
        let touched = connection(State::TimeWait, 120);
        assert!(!pass(&mut memory, &touched, later).is_settled);
    }

    #[test]
    fn another_state_begins_anew_and_what_is_gone_is_forgotten() {
        let begin = Instant::now();
        let later = begin + Duration::from_secs(5);
        let mut memory = Memory::default();
        let waiting = connection(State::FinWait, 120);
        pass(&mut memory, &waiting, begin);
        memory.settle(&waiting);
        let closed = pass(&mut memory, &connection(State::Close, 10), later);
        assert_eq!((closed.since, closed.is_settled), (later, false));
        memory.begin();
        memory.end();
        assert!(memory.known.is_empty());
    }
}
