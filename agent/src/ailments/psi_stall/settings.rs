//! The ailment's table of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    config::{Allowed, Key},
    kernel::bpf::Hook,
};

/// Limits of the verdict and of the walk; [`Settings::KEYS`] says more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Hooks that may be used, the preferred first.
    pub hooks: Vec<Hook>,
    /// Share of the window for which tasks may wait for a CPU.
    pub cpu_ratio: f64,
    /// Share of the window for which tasks may wait for memory.
    pub memory_ratio: f64,
    /// Share of the window for which tasks may wait for a disk.
    pub io_ratio: f64,
    /// Share of the window from which on a stall is critical.
    pub critical_ratio: f64,
    /// A cgroup counts when it waits, or runs, for more than this share of the window.
    pub floor_ratio: f64,
    /// Whether the kernel is asked to call when tasks wait.
    pub armed: bool,
    /// Cgroups for which the kernel is asked as well.
    pub armed_cgroups: u32,
    /// How long the tracepoints of the scheduler are attached at a time.
    #[serde(with = "humantime_serde")]
    pub watch_for: Duration,
    /// How long they are left out then.
    #[serde(with = "humantime_serde")]
    pub watch_pause: Duration,
    /// Cgroups that metrics show.
    pub top_cgroups: u32,
    /// Cgroups that are known at one time.
    pub max_cgroups: u32,
    /// The longest that one walk of the tree may take.
    #[serde(with = "humantime_serde")]
    pub walk_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hooks: vec![Hook::Fentry, Hook::RawTracepoint, Hook::Kprobe],
            cpu_ratio: 0.4,
            memory_ratio: 0.1,
            io_ratio: 0.4,
            critical_ratio: 0.7,
            floor_ratio: 0.01,
            armed: true,
            armed_cgroups: 16,
            watch_for: Duration::from_secs(3),
            watch_pause: Duration::from_secs(30),
            top_cgroups: 50,
            max_cgroups: 20_000,
            walk_limit: Duration::from_millis(500),
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
            name: "cpu_ratio",
            allowed: Allowed::Share,
            help: "The verdict is cpu_contention, or cpu_throttled, when tasks waited for a CPU \
                   for more than this share of the time.",
        },
        Key {
            name: "memory_ratio",
            allowed: Allowed::Share,
            help: "The verdict is memory_reclaim, or memory_limit, when tasks waited for memory \
                   for more than this share of the time.",
        },
        Key {
            name: "io_ratio",
            allowed: Allowed::Share,
            help: "The verdict is io_stall when tasks waited for a disk for more than this share \
                   of the time.",
        },
        Key {
            name: "critical_ratio",
            allowed: Allowed::Share,
            help: "A stall of any kind is critical from this share of the time on.",
        },
        Key {
            name: "floor_ratio",
            allowed: Allowed::Share,
            help: "A cgroup takes part in a report, and gets series of its own, when its tasks \
                   waited, or ran, for more than this share of the time.",
        },
        Key {
            name: "armed",
            allowed: Allowed::Switch,
            help: "Whether a reading is taken as soon as tasks of the node have waited for more \
                   than one of the ratios above of a second, which the kernel then calls for: at \
                   most once a second, and as long as it lasts.",
        },
        Key {
            name: "armed_cgroups",
            allowed: Allowed::Count { min: 0, max: 256 },
            help: "Cgroups for which the kernel calls as well, at the same ratios: those that have \
                   waited most lately, since what waits in one of them may be too little to be \
                   seen in the pressure of a big node. The kernel has a thread for each, which \
                   sleeps while nobody waits.",
        },
        Key {
            name: "watch_for",
            allowed: Allowed::Time {
                min: Duration::ZERO,
                max: Duration::from_secs(60),
            },
            help: "How long the tracepoints of the scheduler are attached when tasks wait for \
                   CPUs or disks for more than the ratios above: they tell which commands wait, \
                   and which run. 0s: never.",
        },
        Key {
            name: "watch_pause",
            allowed: Allowed::Time {
                min: Duration::from_secs(1),
                max: Duration::from_secs(3_600),
            },
            help: "How long they are not attached again after that, whoever waits.",
        },
        Key {
            name: "top_cgroups",
            allowed: Allowed::Count { min: 0, max: 500 },
            help: "Cgroups that metrics show, 7 series each; all others are one, other.",
        },
        Key {
            name: "max_cgroups",
            allowed: Allowed::Count {
                min: 16,
                max: 1_000_000,
            },
            help: "Cgroups that are looked at in one walk, about 0.5 KiB of memory each.",
        },
        Key {
            name: "walk_limit",
            allowed: Allowed::Time {
                min: Duration::from_millis(1),
                max: Duration::from_secs(10),
            },
            help: "The longest that one walk of the tree of cgroups may take. What was not \
                   reached then is looked at in the next.",
        },
    ];
}
