//! What somebody else has written since the agent began: such a key is left alone.

use std::{collections::BTreeMap, fmt};

use super::writer::SysctlTarget;
use crate::model::Change;

/// Values as they were seen last, and who did not write them.
#[derive(Debug, Default)]
pub(super) struct Values {
    known: BTreeMap<Key, u64>,
    foreign: BTreeMap<Key, ForeignWrite>,
    seen: u64,
}

/// A sysctl and the network namespace that it is in.
type Key = (String, u32);

/// A change that the agent has not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignWrite {
    key: String,
    from: u64,
    to: u64,
    /// Its number among all that were seen.
    number: u64,
    /// Who may have made it, as sentences.
    pub(super) writers: Vec<String>,
}

impl ForeignWrite {
    /// The sysctl.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ForeignWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, from, to, .. } = self;
        write!(
            f,
            "another program changed {key} from {from} to {to} since the agent began"
        )?;
        match self.writers.join("; ") {
            writers if writers.is_empty() => Ok(()),
            writers => write!(f, " ({writers})"),
        }
    }
}

impl Values {
    /// Takes in the value before a change, as a reading has it.
    pub(super) fn saw(&mut self, change: &Change) {
        self.observe(&change.key, change.netns, change.from);
    }

    /// Takes in a value that is there now, whoever wrote it.
    pub(super) fn observe(&mut self, key: &str, netns: u32, value: u64) {
        let place = (key.to_owned(), netns);
        let before = self.known.insert(place.clone(), value);
        if let Some(from) = before.filter(|before| *before != value) {
            self.seen += 1;
            let write = ForeignWrite {
                key: key.to_owned(),
                from,
                to: value,
                number: self.seen,
                writers: Vec::new(),
            };
            self.foreign.insert(place, write);
        }
    }

    /// The agent has written a value.
    pub(super) fn wrote(&mut self, target: SysctlTarget<'_>, value: u64) {
        let place = (target.key.to_owned(), target.netns);
        self.known.insert(place, value);
    }

    /// The last change by somebody else of what these would change.
    pub(super) fn foreign(&self, changes: &[Change]) -> Option<&ForeignWrite> {
        let place = |change: &Change| (change.key.clone(), change.netns);
        let foreign = changes.iter().filter_map(|it| self.foreign.get(&place(it)));
        foreign.max_by_key(|it| it.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "vm.watermark_scale_factor";

    fn change(from: u64) -> Change {
        Change::new(KEY, 1, from, 150)
    }

    #[test]
    fn a_value_that_changes_was_written_by_somebody_else_unless_the_agent_did() {
        let mut values = Values::default();
        values.saw(&change(10));
        values.saw(&change(10));
        assert_eq!(values.foreign(&[change(10)]), None);
        values.wrote(SysctlTarget { key: KEY, netns: 1 }, 150);
        values.wrote(SysctlTarget { key: KEY, netns: 1 }, 10);
        values.saw(&change(10));
        assert_eq!(values.foreign(&[change(10)]), None);
        values.saw(&change(200));
        let foreign = values.foreign(&[change(200)]).expect("it was written");
        assert_eq!((foreign.from, foreign.to), (10, 200));
        // It may change back: whoever wrote it once may do so again.
        values.saw(&change(10));
        assert!(values.foreign(&[change(10)]).is_some());
        let elsewhere = Change::new(KEY, 2, 10, 150);
        assert_eq!(values.foreign(&[elsewhere]), None, "another namespace");
    }
}
