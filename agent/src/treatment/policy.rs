//! What the configuration allows.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Allowed, Key},
    model::{LONGEST, Trigger},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// `[treatment]`: limits of all treatments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How long one lasts.
    #[serde(with = "humantime_serde")]
    pub duration: Duration,
    /// Within which it has to help.
    #[serde(with = "humantime_serde")]
    pub watch: Duration,
    /// After the end of one until the same may begin again.
    #[serde(with = "humantime_serde")]
    pub cool_down: Duration,
    /// The same after one that did not help, or harmed.
    #[serde(with = "humantime_serde")]
    pub back_off: Duration,
    /// How many may begin in an hour.
    pub per_hour: u32,
    /// How often a value that somebody has set back is written again.
    pub reapply: u32,
    /// What the agent does with those that are active when it ends.
    pub at_exit: AtExit,
    /// By treatment; those that are missing are [`Mode::DryRun`].
    #[serde(skip)]
    pub modes: BTreeMap<String, Mode>,
}

/// What an ending agent does with active treatments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtExit {
    /// Puts all back.
    #[default]
    Undo,
    /// Leaves them to the next agent, which puts them back when their time is over.
    Keep,
}

/// Who may have a treatment applied; each mode allows what those before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nobody.
    Off,
    /// A person who says so on the command line; the agent says what it would do.
    #[default]
    DryRun,
    /// A person.
    Manual,
    /// An alert too.
    Alert,
    /// The agent by itself too.
    Auto,
}

impl Policy {
    /// What may stand in `[treatment]`.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "duration",
            allowed: Self::DURATION,
            help: "How long a treatment lasts before it is undone, unless it is asked for with \
                   another time.",
        },
        Key {
            name: "watch",
            allowed: Allowed::Time {
                min: SECOND,
                max: MINUTE.saturating_mul(60),
            },
            help: "After this time a treatment has to have helped, by the verdict of the ailment \
                   that it is against; else it is undone. While it is watched, it is undone at \
                   once if another ailment gets worse.",
        },
        Key {
            name: "cool_down",
            allowed: Self::PAUSE,
            help: "After the end of a treatment, how long before the agent or an alert may begin \
                   it again.",
        },
        Key {
            name: "back_off",
            allowed: Self::PAUSE,
            help: "The same after a treatment that did not help, that harmed, or that somebody \
                   else has overtaken.",
        },
        Key {
            name: "per_hour",
            allowed: Allowed::Count { min: 1, max: 60 },
            help: "How many treatments the agent and alerts may begin in an hour, together.",
        },
        Key {
            name: "reapply",
            allowed: Allowed::Count { min: 0, max: 100 },
            help: "How often a value that somebody has set back is written again before the \
                   treatment gives up, and advises the place where that value comes from.",
        },
        Key {
            name: "at_exit",
            allowed: Allowed::OneOf(&["undo", "keep"]),
            help: "What an agent that is told to end does with active treatments: undo them, or \
                   keep them for the next agent, which undoes them when their time is over. \
                   Without a next agent they stay until `nodemedic undo` or a reboot.",
        },
    ];

    const DURATION: Allowed = Allowed::Time {
        min: SECOND,
        max: LONGEST,
    };
    const PAUSE: Allowed = Allowed::Time {
        min: Duration::ZERO,
        max: LONGEST,
    };

    /// What may stand beside a treatment's name in `[treatments]`.
    pub const MODES: Allowed = Allowed::OneOf(&["off", "dry-run", "manual", "alert", "auto"]);

    /// Who may have this treatment applied.
    pub fn mode(&self, treatment: &str) -> Mode {
        self.modes.get(treatment).copied().unwrap_or_default()
    }

    /// The least mode in which this trigger applies a treatment without being told to.
    pub(super) const fn needs(trigger: &Trigger) -> Mode {
        match trigger {
            Trigger::Manual { .. } => Mode::Manual,
            Trigger::Alert { .. } => Mode::Alert,
            Trigger::Auto => Mode::Auto,
        }
    }

    /// A time limit, as the command line takes it.
    ///
    /// # Errors
    ///
    /// A sentence that says what is allowed.
    pub fn parse_duration(text: &str) -> Result<Duration, String> {
        Self::DURATION.check(&toml::de::DeValue::String(text.into()))?;
        humantime::parse_duration(text).map_err(|error| error.to_string())
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            duration: MINUTE * 60,
            watch: SECOND * 90,
            cool_down: MINUTE * 5,
            back_off: MINUTE * 60,
            per_hour: 6,
            reapply: 3,
            at_exit: AtExit::Undo,
            modes: BTreeMap::new(),
        }
    }
}

impl Mode {
    /// What the configuration calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::DryRun => "dry-run",
            Self::Manual => "manual",
            Self::Alert => "alert",
            Self::Auto => "auto",
        }
    }

    /// The mode of this name.
    pub fn of(name: &str) -> Option<Self> {
        [
            Self::Off,
            Self::DryRun,
            Self::Manual,
            Self::Alert,
            Self::Auto,
        ]
        .into_iter()
        .find(|mode| mode.name() == name)
    }
}
