//! What is swept by this process, as a switch for each network namespace.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use super::{Limits, SweepCounters, SweepReading, sweeper::Sweeper};
use crate::{
    kernel::{conntrack, netns},
    model::Switch,
};

/// On it is 1. It is off again when the agent ends, however it does.
pub static SWITCH: Switch = Switch {
    key: "nodemedic.sweep_dead",
    read,
    write,
};

static SWEEPERS: LazyLock<Mutex<Sweepers>> = LazyLock::new(Mutex::default);

/// All sweepings of this process. There is one, as there is one agent on a node.
#[derive(Debug, Default)]
pub struct Sweepers {
    limits: Option<Limits>,
    running: BTreeMap<u32, Sweeper>,
    tally: Arc<SweepCounters>,
}

impl Sweepers {
    /// What holds for sweepings that begin from now on.
    pub fn limit(limits: Limits) {
        Self::with(|sweepers| sweepers.limits = Some(limits));
    }

    /// How it stands.
    pub fn reading() -> SweepReading {
        Self::with(|sweepers| {
            sweepers
                .tally
                .read(sweepers.running.keys().copied().collect())
        })
    }

    /// A sweeping that has ended by itself is none, so nothing here is ever half changed.
    fn with<T>(f: impl FnOnce(&mut Self) -> T) -> T {
        let mut sweepers = SWEEPERS.lock().unwrap_or_else(PoisonError::into_inner);
        sweepers.running.retain(|_, sweeping| sweeping.is_alive());
        f(&mut sweepers)
    }
}

/// Nothing while conntrack cannot be asked, or where nobody lives in the namespace any
/// more, which the sweeping must not keep alive.
fn read(netns: u32) -> io::Result<Option<u64>> {
    let possible = conntrack::netlink_is_there() && netns::is_living(netns)?;
    Ok(Sweepers::with(|sweepers| {
        if !possible {
            sweepers.running.remove(&netns);
            return None;
        }
        Some(u64::from(sweepers.running.contains_key(&netns)))
    }))
}

fn write(netns: u32, value: u64) -> io::Result<()> {
    Sweepers::with(|sweepers| {
        if value == 0 {
            sweepers.running.remove(&netns);
            return Ok(());
        }
        if sweepers.running.contains_key(&netns) {
            return Ok(());
        }
        if !conntrack::netlink_is_there() {
            return Err(io::Error::other(conntrack::NETLINK_IS_MISSING));
        }
        let limits = sweepers.limits.unwrap_or_default();
        match Sweeper::start(netns, limits, Arc::clone(&sweepers.tally))? {
            Some(sweeping) => {
                sweepers.running.insert(netns, sweeping);
                Ok(())
            }
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no process is in network namespace {netns} any more"),
            )),
        }
    })
}
