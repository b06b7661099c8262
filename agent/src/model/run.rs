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
        /// When it began, as the payload that began the run has it.
        starts_at: String,
        /// The latest time at which it is known to have begun again or to have ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<String>,
    },
}

/// An alert that is resolved, as a payload has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Its fingerprint.
    pub fingerprint: String,
    /// When it began.
    pub starts_at: String,
    /// When it ended; an old sender may not say.
    pub ends_at: Option<String>,
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
    /// The agent was killed while it wrote, or the values were restored while no agent ran.
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
        matches!(other, Self::Alert { fingerprint, .. } if self.is_alert(fingerprint))
    }

    /// Whether it is the alert of this fingerprint.
    pub fn is_alert(&self, of: &str) -> bool {
        matches!(self, Self::Alert { fingerprint, .. } if fingerprint == of)
    }

    /// Whether an alert that fires is one that this run knows. Alertmanager merges the alerts of
    /// two Prometheus servers and keeps the earliest start (alert/alert.go, `Merge`), so the
    /// start of a firing may move back. One that began later is another firing.
    pub fn knows(&self, firing: &Self) -> bool {
        self.is_alert_of(firing)
            && match (self.latest(), firing.latest()) {
                (Some(known), Some(began)) => began <= known,
                _ => self.starts_at() == firing.starts_at(),
            }
    }

    /// Whether an alert that is resolved ends what this one has begun: it is the same one, and
    /// ended no earlier than this one last began. Its start may be any of the merged alerts', or
    /// its end, as Grafana 12 has it. A resolution that comes late ends no newer firing.
    pub fn is_over_with(&self, resolved: &Resolution) -> bool {
        let is_same = matches!(self, Self::Alert { starts_at, until: None, .. }
            if *starts_at == resolved.starts_at);
        let ended = self.latest().zip(resolved.at());
        self.is_alert(&resolved.fingerprint)
            && (is_same || ended.is_some_and(|(began, ended)| began <= ended))
    }

    /// Takes in that it began again, or ended, at a time. Whether that is news.
    pub fn note(&mut self, at: &str) -> bool {
        let latest = self.latest();
        let is_later = instant(at).is_some_and(|at| latest.is_none_or(|latest| latest < at));
        match self {
            Self::Alert { until, .. } if is_later => {
                *until = Some(at.to_owned());
                true
            }
            _ => false,
        }
    }

    /// When an alert began.
    pub fn starts_at(&self) -> Option<&str> {
        match self {
            Self::Alert { starts_at, .. } => Some(starts_at),
            Self::Manual { .. } | Self::Auto => None,
        }
    }

    /// The latest time that is known of an alert.
    fn latest(&self) -> Option<jiff::Timestamp> {
        match self {
            Self::Alert {
                starts_at, until, ..
            } => instant(starts_at).max(until.as_deref().and_then(instant)),
            Self::Manual { .. } | Self::Auto => None,
        }
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

impl Resolution {
    /// When the alert ended, or at the earliest.
    fn at(&self) -> Option<jiff::Timestamp> {
        instant(&self.starts_at).max(self.ends_at.as_deref().and_then(instant))
    }
}

fn instant(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
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
