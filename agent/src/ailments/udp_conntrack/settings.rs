//! The ailment's table of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    config::{Allowed, Key},
    kernel::bpf::Hook,
};

const SECOND: Duration = Duration::from_secs(1);

/// Hooks, sizes of the maps and limits of the verdict; [`Settings::KEYS`] says more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Hooks that may be used, the preferred first.
    pub hooks: Vec<Hook>,
    /// Flows that the kernel tells apart at one time.
    pub max_flows: u32,
    /// Entries whose time of creation is remembered.
    pub max_births: u32,
    /// Flows that metrics show.
    pub top_flows: u32,
    /// Time between two walks of the table; zero for none.
    #[serde(with = "humantime_serde")]
    pub snapshot_interval: Duration,
    /// The longest that one walk may take.
    #[serde(with = "humantime_serde")]
    pub snapshot_limit: Duration,
    /// `filling` when the table will be full in less than this.
    #[serde(with = "humantime_serde")]
    pub filling_within: Duration,
    /// `filling` when more than this share of the table is in use.
    pub filling_ratio: f64,
    /// `wasteful` when more than this share of the entries stand idle.
    pub wasteful_ratio: f64,
    /// `wasteful` only when more than this share of the table is in use.
    pub wasteful_usage_ratio: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hooks: vec![Hook::Fentry, Hook::Kprobe],
            max_flows: 8_192,
            max_births: 65_536,
            top_flows: 100,
            snapshot_interval: Duration::from_secs(60),
            snapshot_limit: Duration::from_millis(500),
            filling_within: Duration::from_secs(600),
            filling_ratio: 0.9,
            wasteful_ratio: 0.5,
            wasteful_usage_ratio: 0.1,
        }
    }
}

impl Settings {
    /// What may stand in the table.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "hooks",
            allowed: Allowed::SomeOf(&["fentry", "kprobe"]),
            help: "Hooks that may be used, the preferred first. With none the ailment is measured \
                   by its baseline alone.",
        },
        Key {
            name: "max_flows",
            allowed: Allowed::Count {
                min: 16,
                max: 1_048_576,
            },
            help: "Flows (network namespace, port, source) that the kernel tells apart at one \
                   time, about 0.1 KiB of kernel memory each. Beyond it the least used is \
                   forgotten, and what it made since the last tick is counted as other.",
        },
        Key {
            name: "max_births",
            allowed: Allowed::Count {
                min: 16,
                max: 4_194_304,
            },
            help: "Entries whose time of creation is remembered, for their lifetimes, about 0.1 \
                   KiB of kernel memory each. Lifetimes beyond it are counted as lost.",
        },
        Key {
            name: "top_flows",
            allowed: Allowed::Count { min: 0, max: 1_000 },
            help: "Flows that metrics show; all others are one series, other.",
        },
        Key {
            name: "snapshot_interval",
            allowed: Allowed::Time {
                min: Duration::ZERO,
                max: SECOND.saturating_mul(86_400),
            },
            help: "Time between two walks of the whole table through ctnetlink; \"0s\" switches \
                   them off.",
        },
        Key {
            name: "snapshot_limit",
            allowed: Allowed::Time {
                min: Duration::from_millis(1),
                max: SECOND.saturating_mul(10),
            },
            help: "The longest that one walk may take. The next waits for at least 200 times as \
                   long as a walk took.",
        },
        Key {
            name: "filling_within",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(86_400),
            },
            help: "The verdict is filling when the table will be full in less than this.",
        },
        Key {
            name: "filling_ratio",
            allowed: Allowed::Share,
            help: "The verdict is filling when more than this share of the table is in use.",
        },
        Key {
            name: "wasteful_ratio",
            allowed: Allowed::Share,
            help: "The verdict is wasteful when more than this share of the entries stand idle \
                   after a flow that is over,",
        },
        Key {
            name: "wasteful_usage_ratio",
            allowed: Allowed::Share,
            help: "and more than this share of the table is in use.",
        },
    ];
}
