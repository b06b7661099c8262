//! A run of a treatment, from its beginning to its end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::HealthSnapshot;

/// A treatment that was begun. Times are seconds; those without `unix` are of
/// `CLOCK_BOOTTIME`, which no one can set, and mean something on this boot alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Unique in the journal, rising.
    pub id: u64,
    /// [`super::Treatment::name`]
    pub treatment: String,
    /// The ailment that it is against.
    pub ailment: String,
    /// The kinds of its findings that it is against.
    pub against: Vec<String>,
    /// Who or what asked for it.
    pub trigger: Trigger,
    /// How far it is.
    pub state: RunState,
    /// Why it is there, in words.
    pub why: String,
    /// What it changes.
    pub changes: Vec<Change>,
    /// When it began, seconds since the epoch.
    pub began_unix_seconds: f64,
    /// When it ends of itself, seconds since the epoch.
    pub ends_unix_seconds: f64,
    /// `/proc/sys/kernel/random/boot_id` of the boot that the next are of.
    pub boot: String,
    /// When it began.
    pub began: f64,
    /// Until when it has to show that it helps.
    pub watched_until: f64,
    /// When it ends of itself.
    pub ends: f64,
    /// When it had its end.
    pub ended: Option<f64>,
    /// What ended it.
    pub ending: Option<Ending>,
    /// How often somebody has set a value back, and it was written again.
    pub reapplied: u32,
    /// How the node was before.
    pub before: HealthSnapshot,
    /// Who else may write the keys, as sentences.
    #[serde(default)]
    pub writers: Vec<String>,
}

/// Who or what asked for a treatment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Trigger {
    /// A person, by the command line.
    #[serde(alias = "hand")]
    Manual {
        /// The user's number.
        uid: u32,
    },
    /// The agent itself, where the configuration allows that.
    #[serde(alias = "agent")]
    Auto,
    /// An alert.
    Alert {
        /// Its fingerprint.
        fingerprint: String,
        /// When it began, as the payload has it.
        starts_at: String,
    },
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Nothing is written yet, or not all.
    Intended,
    /// Written, and watched.
    Applied,
    /// It helps, and stays until its time is over.
    #[serde(alias = "kept")]
    Confirmed,
    /// Put back.
    Undone,
    /// Somebody else has changed a value since; the others are put back.
    #[serde(alias = "overtaken")]
    Overridden,
    /// The machine has booted since.
    #[serde(alias = "void")]
    Rebooted,
    /// It could not be written, and what was is put back.
    Failed,
}

/// What ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its time was over.
    Expired,
    /// A person asked for it.
    Requested,
    /// The alert that had asked for it is resolved.
    Resolved,
    /// The agent was told to end.
    AgentEnded,
    /// The agent was killed while it wrote.
    Interrupted,
    /// It did not help in time.
    Ineffective,
    /// Another ailment got worse.
    Harmful,
    /// A value was changed by somebody else, once to another or again and again.
    Contended,
    /// A value could not be written.
    Refused,
    /// The machine has booted.
    Reboot,
}

/// A sysctl, what it was and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The sysctl, dots between its parts.
    pub key: String,
    /// Inode number of the network namespace that it is of.
    pub netns: u32,
    /// The value before.
    pub from: u64,
    /// The value that helps.
    pub to: u64,
    /// Whether the key was not there when it was last looked at: its module was unloaded,
    /// or the agent that it was a switch of has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
}

impl Run {
    /// Whether it has its end before it.
    pub fn is_active(&self) -> bool {
        matches!(
            self.state,
            RunState::Intended | RunState::Applied | RunState::Confirmed
        )
    }

    /// What counts call how far it is: an end of which one should know is told apart.
    pub fn outcome(&self) -> &'static str {
        match (self.state, self.ending) {
            (RunState::Undone, Some(Ending::Ineffective)) => "ineffective",
            (RunState::Undone, Some(Ending::Harmful)) => "harmful",
            (state, _) => state.name(),
        }
    }

    /// Whether it is a reason to leave this node alone for longer.
    pub fn discourages(&self) -> bool {
        matches!(
            self.ending,
            Some(Ending::Ineffective | Ending::Harmful | Ending::Contended | Ending::Refused)
        )
    }

    /// Whether it writes to this key, in any network namespace.
    pub fn has_key(&self, key: &str) -> bool {
        self.changes.iter().any(|change| change.key == key)
    }

    /// Whether it writes to one of these.
    pub fn touches(&self, changes: &[Change]) -> bool {
        self.changes.iter().any(|own| {
            changes
                .iter()
                .any(|other| own.key == other.key && own.netns == other.netns)
        })
    }
}

impl Change {
    /// A change of a key that is there.
    pub fn new(key: &str, netns: u32, from: u64, to: u64) -> Self {
        Self {
            key: key.to_owned(),
            netns,
            from,
            to,
            absent: false,
        }
    }
}

impl Trigger {
    /// Whether it is the same alert, which may have come back since.
    pub fn is_alert_of(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Alert { fingerprint, .. },
                Self::Alert {
                    fingerprint: of, ..
                },
            ) => fingerprint == of,
            _ => false,
        }
    }

    /// Whether an alert that is resolved ends what this one has begun: it is the same one, and
    /// began no earlier. One that comes back before its group is due (`group_interval`) is never
    /// told of as resolved, only the later one is; a resolved one that comes late ends no later one.
    pub fn is_over_with(&self, resolved: &Self) -> bool {
        let began = |trigger: &Self| match trigger {
            Self::Alert { starts_at, .. } => starts_at.parse::<jiff::Timestamp>().ok(),
            Self::Manual { .. } | Self::Auto => None,
        };
        let later = began(self).zip(began(resolved));
        self == resolved
            || self.is_alert_of(resolved) && later.is_some_and(|(own, other)| own <= other)
    }

    /// What labels call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Manual { .. } => "manual",
            Self::Auto => "auto",
            Self::Alert { .. } => "alert",
        }
    }
}

impl RunState {
    /// What labels call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Applied => "applied",
            Self::Confirmed => "confirmed",
            Self::Undone => "undone",
            Self::Overridden => "overridden",
            Self::Rebooted => "rebooted",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            netns,
            from,
            to,
            ..
        } = self;
        write!(f, "{key} in network namespace {netns}: {from} -> {to}")
    }
}
