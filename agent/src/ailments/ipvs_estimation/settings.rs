//! The ailment's table of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    config::{Allowed, Key},
    kernel::bpf::Hook,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Hooks, the watch over waits, and limits of the verdict; [`Settings::KEYS`] says more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Hooks that may be used, the preferred first.
    pub hooks: Vec<Hook>,
    /// A pass, or a wait, that takes as long as this is slow.
    #[serde(with = "humantime_serde")]
    pub slow: Duration,
    /// When to watch who waits.
    pub watch: WatchWhen,
    /// How long the watch goes on after the last slow pass.
    #[serde(with = "humantime_serde")]
    pub watch_for: Duration,
    /// Time between two scans of the services.
    #[serde(with = "humantime_serde")]
    pub census_interval: Duration,
    /// The longest that one scan may take.
    #[serde(with = "humantime_serde")]
    pub census_limit: Duration,
    /// `busy` when the threads of the estimator take more than this share of one CPU.
    pub busy_ratio: f64,
}

/// When the tracepoints are attached that tell who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchWhen {
    /// While passes are slow, or predicted to be.
    Slow,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hooks: vec![Hook::Fentry, Hook::RawTracepoint, Hook::Kprobe],
            slow: Duration::from_millis(10),
            watch: WatchWhen::Slow,
            watch_for: Duration::from_secs(60),
            census_interval: Duration::from_secs(30),
            census_limit: SECOND,
            busy_ratio: 0.25,
        }
    }
}

impl Settings {
    /// What may stand in the table.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "hooks",
            allowed: Allowed::SomeOf(&["fentry", "raw_tracepoint", "kprobe"]),
            help: "Hooks that may be used, the preferred first. With none the ailment is measured \
                   by its baseline alone.",
        },
        Key {
            name: "slow",
            allowed: Allowed::Time {
                min: MILLISECOND,
                max: SECOND.saturating_mul(10),
            },
            help: "A pass that takes as long as this is slow. The verdict is stalling when \
                   packets or tasks waited for as long, and at_risk when a pass is predicted to \
                   take it.",
        },
        Key {
            name: "watch",
            allowed: Allowed::OneOf(&["slow", "always", "never"]),
            help: "When to watch who waits, which takes programs on softirqs and switches of \
                   tasks: while passes are slow or predicted to be, always, or never.",
        },
        Key {
            name: "watch_for",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(86_400),
            },
            help: "How long the watch goes on after the last slow pass.",
        },
        Key {
            name: "census_interval",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(86_400),
            },
            help: "Time between two counts of the services and destinations.",
        },
        Key {
            name: "census_limit",
            allowed: Allowed::Time {
                min: MILLISECOND,
                max: SECOND.saturating_mul(10),
            },
            help: "The longest that one count may take. The next waits for at least 200 times as \
                   long as one took.",
        },
        Key {
            name: "busy_ratio",
            allowed: Allowed::Share,
            help: "The verdict is busy when the threads of the estimator (Linux 6.2 and later) \
                   take more than this share of one CPU.",
        },
    ];
}
