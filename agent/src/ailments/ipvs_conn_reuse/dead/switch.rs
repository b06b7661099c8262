//! The sweeper threads of this process, as a switch for each network namespace.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Limits, SweepCounters, SweepReading, sweeper::Sweeper};
use crate::{
    kernel::{conntrack, netns},
    model::Switch,
};

/// Key of the switch. On it is 1. It is off again when the agent ends, however it does.
pub const SWEEP_DEAD: &str = "nodemedic.sweep_dead";

/// The sweeper threads of an agent, which its measurement and its treatments share.
#[derive(Clone, Debug, Default)]
pub struct Sweepers(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    limits: Option<Limits>,
    running: BTreeMap<u32, Sweeper>,
    counters: Arc<SweepCounters>,
}

impl Sweepers {
    /// What holds for threads that begin from now on.
    pub fn limit(&self, limits: Limits) {
        self.state().limits = Some(limits);
    }

    /// How it stands.
    pub fn reading(&self) -> SweepReading {
        let state = self.state();
        state.counters.read(state.running.keys().copied().collect())
    }

    /// A thread that has ended by itself is none, so nothing here is ever half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.running.retain(|_, sweeper| sweeper.is_alive());
        state
    }
}

impl Switch for Sweepers {
    fn key(&self) -> &'static str {
        SWEEP_DEAD
    }

    /// Nothing while conntrack cannot be asked, or where nobody lives in the namespace any
    /// more, which the thread must not keep alive.
    fn read(&self, netns: u32) -> io::Result<Option<u64>> {
        let is_possible = conntrack::netlink_is_there() && netns::is_living(netns)?;
        let mut state = self.state();
        if !is_possible {
            state.running.remove(&netns);
            return Ok(None);
        }
        Ok(Some(u64::from(state.running.contains_key(&netns))))
    }

    fn write(&self, netns: u32, value: u64) -> io::Result<()> {
        let mut state = self.state();
        if value == 0 {
            state.running.remove(&netns);
            return Ok(());
        }
        if state.running.contains_key(&netns) {
            return Ok(());
        }
        if !conntrack::netlink_is_there() {
            return Err(io::Error::other(conntrack::NETLINK_IS_MISSING));
        }
        let limits = state.limits.unwrap_or_default();
        match Sweeper::start(netns, limits, Arc::clone(&state.counters))? {
            Some(sweeper) => {
                state.running.insert(netns, sweeper);
                Ok(())
            }
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("network namespace {netns} has no process left"),
            )),
        }
    }
}
