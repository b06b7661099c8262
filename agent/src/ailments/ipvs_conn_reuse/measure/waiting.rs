//! Clients that wait for a connection, and those that have given up.

use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{Array, MapData};
use ebpf::ipvs_conn_reuse::{Fate, Number, Tuple, Waiting};

use crate::{
    kernel::bpf::{HashMap, Object},
    time::monotonic,
};

/// The map of those that wait. The probe takes out who connects, this side who does
/// not; either counts only what it has taken.
pub(super) struct WaitingRoom {
    map: HashMap<Tuple, Waiting>,
    numbers: Array<MapData, u64>,
    give_up_after: Duration,
    swept: u64,
    never_connected: u64,
}

/// Who waits now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) clients: u64,
    pub(super) longest: Duration,
}

impl WaitingRoom {
    pub(super) fn open(object: &mut Object, give_up_after: Duration) -> anyhow::Result<Self> {
        let numbers = object.take_map("NUMBERS")?;
        Ok(Self {
            map: object.take_hash_map("WAITING")?,
            numbers: numbers.try_into().context("open map NUMBERS")?,
            give_up_after,
            swept: 0,
            never_connected: 0,
        })
    }

    /// Takes out who has given up, and tells who waits.
    pub(super) fn sweep(&mut self) -> anyhow::Result<Now> {
        let now = monotonic();
        let mut waiting = Now::default();
        let swept = self.swept;
        for (tuple, entry) in self.map.read()? {
            let waits = now.saturating_sub(Duration::from_nanos(entry.since_ns));
            let is_known = entry.fate == Fate::Dropped as u8;
            if waits < self.give_up_after {
                waiting.clients += u64::from(is_known);
                waiting.longest =
                    waiting
                        .longest
                        .max(if is_known { waits } else { Duration::ZERO });
            } else if self.map.remove(&tuple)? {
                self.swept += 1;
                self.never_connected += u64::from(is_known);
            }
        }
        if self.swept != swept {
            self.numbers
                .set(Number::Swept as u32, self.swept, 0)
                .context("write map NUMBERS")?;
        }
        Ok(waiting)
    }

    /// Clients that had no connection when they were taken to have given up.
    pub(super) fn never_connected(&self) -> u64 {
        self.never_connected
    }
}
