//! What was done, and what was left undone.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};

use super::Reason;

/// Why something was left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Left {
    /// As many were opened in this second as are allowed; it is looked at again.
    Rate = 0,
    /// More connections than are looked at in one pass.
    Connections = 1,
    /// Events that the kernel had no room for.
    Events = 2,
    /// The kernel refused.
    Error = 3,
}

impl Left {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Rate, Self::Connections, Self::Events, Self::Error];

    /// The value of the metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Connections => "connections",
            Self::Events => "events",
            Self::Error => "error",
        }
    }
}

/// Counts that several threads add to.
#[derive(Debug, Default)]
pub struct SweepCounters {
    swept: [AtomicU64; Reason::ALL.len()],
    left: [AtomicU64; Left::ALL.len()],
}

/// What a report says of the sweeping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReading {
    /// Network namespaces that are swept now.
    pub namespaces: Vec<u32>,
    /// Entries that were opened since the agent began, by reason.
    pub swept: BTreeMap<String, u64>,
    /// How often something was left undone, by reason.
    pub left: BTreeMap<String, u64>,
}

impl SweepCounters {
    pub(super) fn swept(&self, reason: Reason) {
        self.swept[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self, why: Left) {
        self.left[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts as they are now.
    pub fn read(&self, namespaces: Vec<u32>) -> SweepReading {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let swept = Reason::ALL.iter().zip(&self.swept);
        let left = Left::ALL.iter().zip(&self.left);
        SweepReading {
            namespaces,
            swept: swept
                .map(|(reason, it)| (reason.name().to_owned(), count(it)))
                .collect(),
            left: left
                .map(|(why, it)| (why.name().to_owned(), count(it)))
                .collect(),
        }
    }
}
