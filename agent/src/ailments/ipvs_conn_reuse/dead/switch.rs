//! What is swept by this process, as a switch for each network namespace.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use super::{Limits, SweepReading, Tally, sweeping::Sweeping};
use crate::{
    kernel::{conntrack, netns},
    treatment::Switch,
};

/// On it is 1. It is off again when the agent ends, however it does.
pub static SWITCH: Switch = Switch {
    key: "nodemedic.sweep_dead",
    read,
    write,
};

static DESK: LazyLock<Mutex<Desk>> = LazyLock::new(Mutex::default);

/// All sweepings of this process. There is one, as there is one agent on a node.
#[derive(Debug, Default)]
pub struct Desk {
    limits: Option<Limits>,
    running: BTreeMap<u32, Sweeping>,
    tally: Arc<Tally>,
}

impl Desk {
    /// What holds for sweepings that begin from now on.
    pub fn limit(limits: Limits) {
        Self::with(|desk| desk.limits = Some(limits));
    }

    /// How it stands.
    pub fn reading() -> SweepReading {
        Self::with(|desk| desk.tally.read(desk.running.keys().copied().collect()))
    }

    /// A sweeping that has ended by itself is none, so nothing here is ever half changed.
    fn with<T>(f: impl FnOnce(&mut Self) -> T) -> T {
        let mut desk = DESK.lock().unwrap_or_else(PoisonError::into_inner);
        desk.running.retain(|_, sweeping| sweeping.is_alive());
        f(&mut desk)
    }
}

/// Nothing while conntrack cannot be asked, or where nobody lives in the namespace any
/// more, which the sweeping must not keep alive.
fn read(netns: u32) -> io::Result<Option<u64>> {
    let possible = conntrack::netlink_is_there() && netns::is_living(netns)?;
    Ok(Desk::with(|desk| {
        if !possible {
            desk.running.remove(&netns);
            return None;
        }
        Some(u64::from(desk.running.contains_key(&netns)))
    }))
}

fn write(netns: u32, value: u64) -> io::Result<()> {
    Desk::with(|desk| {
        if value == 0 {
            desk.running.remove(&netns);
            return Ok(());
        }
        if desk.running.contains_key(&netns) {
            return Ok(());
        }
        if !conntrack::netlink_is_there() {
            return Err(io::Error::other(conntrack::NETLINK_IS_MISSING));
        }
        let limits = desk.limits.unwrap_or_default();
        match Sweeping::start(netns, limits, Arc::clone(&desk.tally))? {
            Some(sweeping) => {
                desk.running.insert(netns, sweeping);
                Ok(())
            }
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no process is in network namespace {netns} any more"),
            )),
        }
    })
}
