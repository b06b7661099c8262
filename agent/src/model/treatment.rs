//! What can be done against an ailment, and what it would mean on this node.

use std::{fmt, io, ops::RangeInclusive, sync::Arc, time::Duration};

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

    /// What a proposal of this treatment is as a remedy: by the agent, or, for a sysctl, by hand
    /// as well. `None` where there is nothing to set, or it must not be set.
    ///
    /// `within` is a process in a network namespace that is not the agent's own.
    pub fn remedy(
        &self,
        ailment: &str,
        proposal: &Proposal,
        within: impl Fn(u32) -> Option<u32>,
    ) -> Option<String> {
        if proposal.objection.is_some() || !self.allows(&proposal.changes) {
            return None;
        }
        let Change {
            key,
            netns,
            from,
            to,
            ..
        } = proposal.changes.first()?;
        let Self {
            name, effect, cost, ..
        } = self;
        let enter = within(*netns).map_or_else(String::new, |pid| format!("nsenter -t {pid} -n "));
        let (by_hand, undo_by_hand) = if key.starts_with(OWN_KEYS) {
            (String::new(), String::new())
        } else {
            (
                format!(", or {enter}sysctl -w {key}={to}"),
                format!(", or {enter}sysctl -w {key}={from}"),
            )
        };
        let likewise = match proposal.changes.len() - 1 {
            0 => String::new(),
            more => format!(", likewise in {more} more network namespaces"),
        };
        Some(format!(
            "nodemedic treat {ailment} --treatment {name} --apply{by_hand}{likewise}: {effect}; \
             costs: {cost}; undo: nodemedic undo{undo_by_hand}"
        ))
    }
}

/// What the keys of switches begin with. No sysctl does.
const OWN_KEYS: &str = "nodemedic.";

/// Something that the agent does while it is on, one for each network namespace. Its key
/// is set and put back as a sysctl is.
pub trait Switch: fmt::Debug + Send + Sync {
    /// It begins with `nodemedic.`, unlike any sysctl.
    fn key(&self) -> &'static str;

    /// Its value in the network namespace with this inode number; `None` where it cannot be
    /// switched on.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    fn read(&self, netns: u32) -> io::Result<Option<u64>>;

    /// Sets it there.
    ///
    /// # Errors
    ///
    /// Where it cannot be switched on.
    fn write(&self, netns: u32, value: u64) -> io::Result<()>;
}

/// All that can be done on a node.
#[derive(Debug)]
pub struct Registry {
    /// Each treatment with the name of its ailment, in the order of reports.
    pub treatments: Vec<(&'static str, &'static Treatment)>,
    /// What treatments can switch on and off in the agent itself.
    pub switches: Vec<Arc<dyn Switch>>,
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

#[cfg(test)]
mod tests {
    use super::*;

    static SHORTER: Treatment = Treatment {
        name: "shorter",
        effect: "entries go sooner",
        cost: "late answers",
        acts: "at once",
        applies: "anywhere",
        keys: &[
            Bound {
                key: "net.timeout",
                allowed: 7..=30,
            },
            Bound {
                key: "nodemedic.switch",
                allowed: 1..=1,
            },
        ],
        durable: "",
    };

    fn remedy(changes: Vec<Change>, objection: Option<&str>) -> Option<String> {
        let proposal = Proposal {
            objection: objection.map(str::to_owned),
            ..Proposal::new(&SHORTER, &["full"], changes)
        };
        SHORTER.remedy("ailment", &proposal, |netns| (netns == 9).then_some(42))
    }

    #[test]
    fn a_remedy_is_what_the_treatment_would_set() {
        let timeout = |netns| Change::new("net.timeout", netns, 30, 7);
        assert_eq!(
            remedy(vec![timeout(1)], None).as_deref(),
            Some(
                "nodemedic treat ailment --treatment shorter --apply, or sysctl -w net.timeout=7: \
                 entries go sooner; costs: late answers; undo: nodemedic undo, or sysctl -w \
                 net.timeout=30"
            )
        );
        let elsewhere = remedy(vec![timeout(9), timeout(1)], None).expect("both can be set");
        assert!(elsewhere.contains("nsenter -t 42 -n sysctl -w net.timeout=7"));
        assert!(elsewhere.contains("likewise in 1 more network namespaces"));
        let switch = remedy(vec![Change::new("nodemedic.switch", 1, 0, 1)], None);
        assert!(!switch.expect("it can be set").contains("sysctl"));
    }

    #[test]
    fn what_is_not_to_be_set_is_no_remedy() {
        assert_eq!(remedy(Vec::new(), None), None, "it is set already");
        let change = vec![Change::new("net.timeout", 1, 30, 7)];
        assert_eq!(remedy(change, Some("harm")), None);
        let beyond = vec![Change::new("net.timeout", 1, 30, 6)];
        assert_eq!(remedy(beyond, None), None, "out of bounds");
    }
}
