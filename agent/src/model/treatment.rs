//! What can be done against an ailment, and what it would mean on this node.

use std::{io, ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};

use super::Change;

/// A change of settings that helps against an ailment: its only definition, from which
/// it is checked, carried out, documented, and advised.
#[derive(Debug)]
pub struct Treatment {
    /// Unique; key of the configuration, label, argument on the command line.
    pub name: &'static str,
    /// What it does, as the end of "it has the effect that".
    pub effect: &'static str,
    /// What it costs, and whom.
    pub cost: &'static str,
    /// When it acts, and what it does to what exists already.
    pub acts: &'static str,
    /// Where it can be done, by what the kernel has and does.
    pub applies: &'static str,
    /// The keys that it may write, and what it may write to them.
    pub keys: &'static [Bound],
    /// Where an operator sets the same for good.
    pub durable: &'static str,
}

/// A key with the values that are allowed, whatever a reading proposes.
#[derive(Debug)]
pub struct Bound {
    /// The sysctl, dots between its parts.
    pub key: &'static str,
    /// The values.
    pub allowed: RangeInclusive<u64>,
}

impl Treatment {
    /// Whether every change stays within what is compiled in.
    pub fn allows(&self, changes: &[Change]) -> bool {
        changes.iter().all(|change| {
            let bound = self.keys.iter().find(|bound| bound.key == change.key);
            bound.is_some_and(|bound| bound.allowed.contains(&change.to))
        })
    }

    /// The remedy in a sentence, for those who would do it by hand.
    pub fn advice(&self, from: u64, to: u64) -> String {
        let key = self.keys.first().map_or(self.name, |bound| bound.key);
        let Self { effect, cost, .. } = self;
        format!("sysctl -w {key}={to}: {effect}; costs: {cost}; undo: sysctl -w {key}={from}")
    }
}

/// Something that the agent does while it is on, one for each network namespace. Its key
/// is set and put back as a sysctl is.
#[derive(Debug)]
pub struct Switch {
    /// Unlike that of any sysctl.
    pub key: &'static str,
    /// Its value in the network namespace with this inode number; `None` where it cannot be
    /// switched on.
    pub read: fn(u32) -> io::Result<Option<u64>>,
    /// Sets it there.
    pub write: fn(u32, u64) -> io::Result<()>,
}

/// All that can be done on a node.
#[derive(Debug)]
pub struct Registry {
    /// Each treatment with the name of its ailment, in the order of reports.
    pub treatments: Vec<(&'static str, &'static Treatment)>,
    /// What treatments can switch on and off in the agent itself.
    pub switches: Vec<&'static Switch>,
}

/// A treatment as it would be on this node now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// [`Treatment::name`]
    pub treatment: String,
    /// The kinds of finding that it is against.
    pub against: Vec<String>,
    /// What would be written; empty where all is so already.
    pub changes: Vec<Change>,
    /// Why it would do harm, or no good, on this kernel or in this configuration.
    pub objection: Option<String>,
}

impl Proposal {
    /// A proposal without an objection.
    pub fn new(
        treatment: &'static Treatment,
        against: &[&str],
        changes: impl IntoIterator<Item = Change>,
    ) -> Self {
        Self {
            treatment: treatment.name.to_owned(),
            against: against.iter().map(|kind| (*kind).to_owned()).collect(),
            changes: changes.into_iter().collect(),
            objection: None,
        }
    }
}

/// Hours and days are as far as a treatment may reach without anybody asking for it anew.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3_600);
