//! Passes through the connections of one network namespace.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Left, Limits, Reason, SweepCounters,
    allowance::Allowance,
    memory::{Memory, tuple},
    rule::{Verdict, judge},
};
use crate::kernel::{
    conntrack::{Ctnetlink, TcpEntry, TcpState, TcpTuple},
    ipvs::{Connection, Protocol, Services, State, connections},
};

/// What is done again and again may take this part of the time, so that each such thing
/// costs two percent of one CPU at the most.
pub(super) const SHARE: u32 = 50;

/// A list of the services that is younger than this has them all, as good as.
const FRESH: Duration = Duration::from_millis(100);

/// A connection that is dead, and the entry that stood in the way of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Whose it was.
    pub tuple: TcpTuple,
    /// How conntrack has it.
    pub state: TcpState,
    /// Why it is dead.
    pub reason: Reason,
}

/// What it takes to sweep the network namespace of a thread.
#[derive(Debug)]
pub struct Sweep {
    channel: Ctnetlink,
    limits: Limits,
    /// Whether entries are opened, or only told of.
    apply: bool,
    allowance: Allowance,
    services: Services,
    /// When they may be read again because of one that is not among them.
    services_next: Instant,
    memory: Memory,
    counters: Arc<SweepCounters>,
}

impl Sweep {
    /// For the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Where there is no channel to conntrack.
    pub fn new(limits: Limits, apply: bool, counters: Arc<SweepCounters>) -> io::Result<Self> {
        Ok(Self {
            channel: Ctnetlink::open()?,
            limits,
            apply,
            allowance: Allowance::new(limits.a_second, Instant::now()),
            services: Services::default(),
            services_next: Instant::now(),
            memory: Memory::default(),
            counters,
        })
    }

    /// Looks at all connections, until it is told to end, and opens the entries of those
    /// that are dead. Each of them is told.
    ///
    /// # Errors
    ///
    /// Where a list cannot be read. That an entry cannot be looked up or changed is
    /// counted, and the last of it is an error too.
    pub fn pass(
        &mut self,
        is_to_end: impl Fn() -> bool,
        mut tell: impl FnMut(&Dead),
    ) -> io::Result<()> {
        self.memory.begin();
        // The connections first: a destination that has come since has none of them.
        let candidates = self.candidates()?;
        self.read_services()?;
        let mut outcome = Ok(());
        for connection in &candidates {
            if is_to_end() {
                return outcome;
            }
            match self.look_at(connection) {
                Ok(Some(dead)) => tell(&dead),
                Ok(None) => {}
                Err(error) => {
                    self.counters.left(Left::Error);
                    outcome = Err(error);
                }
            }
        }
        self.memory.end();
        outcome
    }

    /// An entry that conntrack says was reset. One that belongs to no service is left.
    ///
    /// # Errors
    ///
    /// Where it cannot be changed.
    pub(super) fn was_reset(&mut self, entry: &TcpEntry) -> io::Result<()> {
        if entry.is_open() {
            return Ok(());
        }
        let service = entry.tuple.server;
        if !self.services.have(service) && Instant::now() >= self.services_next {
            // It may be a new one.
            self.read_services()?;
        }
        if self.services.have(service) {
            self.open(entry, Reason::Reset)?;
        }
        Ok(())
    }

    fn read_services(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.services = Services::read()?;
        self.services_next = Instant::now() + FRESH.max(began.elapsed() * SHARE);
        Ok(())
    }

    /// The connections whose entries may be in the way, as many as are allowed.
    fn candidates(&self) -> io::Result<Vec<Connection>> {
        let mut candidates = Vec::new();
        // What `self` shows is of the process's first thread.
        connections("thread-self", Protocol::Tcp, None, |connection| {
            if connection.state == State::Other {
                return true;
            }
            if candidates.len() >= self.limits.connections as usize {
                self.counters.left(Left::Connections);
                return false;
            }
            candidates.push(connection);
            true
        })?;
        Ok(candidates)
    }

    fn look_at(&mut self, connection: &Connection) -> io::Result<Option<Dead>> {
        let Connection { service, state, .. } = *connection;
        let is_drained = self.services.is_drained(service, connection.destination);
        // Without looking it up: IPVS sends a SYN of its client to such a server.
        if state == State::FinWait && !is_drained {
            return Ok(None);
        }
        let known = self.memory.recall(connection, Instant::now());
        if known.is_settled {
            return Ok(None);
        }
        let tuple = tuple(connection);
        let Some(entry) = self.channel.find(tuple)? else {
            return Ok(None);
        };
        let reason = match judge(state, known.since.elapsed(), is_drained, &entry) {
            Verdict::Alive | Verdict::Unsure => return Ok(None),
            Verdict::Open => {
                self.settle(connection);
                return Ok(None);
            }
            Verdict::Dead(reason) => reason,
        };
        if !self.open(&entry, reason)? {
            return Ok(None);
        }
        self.settle(connection);
        Ok(Some(Dead {
            tuple,
            state: entry.state,
            reason,
        }))
    }

    /// Whether it was done, or would be.
    fn open(&mut self, entry: &TcpEntry, reason: Reason) -> io::Result<bool> {
        if !self.allowance.take(Instant::now()) {
            self.counters.left(Left::Rate);
            return Ok(false);
        }
        if self.apply {
            if !self.channel.open_to_syns(entry)? {
                return Ok(false);
            }
            self.counters.swept(reason);
        }
        Ok(true)
    }

    /// `TIME_WAIT` lasts for two minutes. What was reset is gone after ten seconds, and its
    /// port may have been used again meanwhile, so it is looked up again.
    fn settle(&mut self, connection: &Connection) {
        if connection.state == State::TimeWait || !self.apply {
            self.memory.settle(connection);
        }
    }
}
