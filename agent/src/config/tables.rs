//! The tables that are not an ailment's: types, defaults and keys.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::key::{Allowed, Key};

const SECOND: Duration = Duration::from_secs(1);

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// Time between readings.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// What the node is called; empty for its host name.
    pub node_name: String,
    /// Time to finish what is under way when asked to stop.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Directory for what must outlive a request; empty for the usual one.
    pub state_dir: PathBuf,
}

impl Agent {
    /// What may stand in `[agent]`.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "listen",
            allowed: Allowed::Address,
            help: "Where the HTTP server listens. Port 0 takes a free port; the log says which. \
                   The pages show addresses of the node's clients, so think before you open \
                   them to a network.",
        },
        Key {
            name: "interval",
            allowed: Self::INTERVAL,
            help: "Time from one reading of all ailments to the next. Scrapes show the last \
                   reading and never start one.",
        },
        Key {
            name: "node_name",
            allowed: Allowed::Text,
            help: "What reports call this node. Empty: its host name.",
        },
        Key {
            name: "drain",
            allowed: Allowed::Time {
                min: Duration::ZERO,
                max: SECOND.saturating_mul(600),
            },
            help: "How long the answers under way, and the removal of the probes, may take after \
                   SIGTERM or Ctrl-C before the agent exits all the same.",
        },
        Key {
            name: "state_dir",
            allowed: Allowed::Text,
            help: "Directory of the lock that keeps a second agent away. Empty: /run/nodemedic \
                   for root, else nodemedic in $XDG_RUNTIME_DIR, else in the directory for \
                   temporary files.",
        },
    ];

    /// What `interval` may be; the flag of the command line is held against it too.
    pub const INTERVAL: Allowed = Allowed::Time {
        min: SECOND,
        max: SECOND.saturating_mul(3_600),
    };
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 19_110).into(),
            interval: SECOND * 5,
            node_name: String::new(),
            drain: SECOND * 10,
            state_dir: PathBuf::new(),
        }
    }
}

/// `[log]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important records that are written.
    pub level: Level,
    /// How a record is written.
    pub format: Format,
}

impl Log {
    /// What may stand in `[log]`.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "level",
            allowed: Allowed::OneOf(&["off", "error", "warn", "info", "debug", "trace"]),
            help: "The least important records that go to standard error.",
        },
        Key {
            name: "format",
            allowed: Allowed::OneOf(&["text", "json"]),
            help: "Lines for people, or one JSON object a line.",
        },
    ];
}

/// Importance of a log record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is written.
    Off,
    /// Something does not work.
    Error,
    /// Something works only in part.
    Warn,
    /// What the agent does.
    #[default]
    Info,
    /// How it does it.
    Debug,
    /// Everything.
    Trace,
}

/// Form of a log record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[metrics]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// The most series that a scrape may have.
    pub max_series: usize,
    /// Whether the kernel is to count and time the runs of BPF programs.
    pub bpf_stats: bool,
}

impl Metrics {
    /// What may stand in `[metrics]`.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "max_series",
            allowed: Allowed::Count {
                min: 500,
                max: 50_000,
            },
            help: "The most series that a scrape has. What is beyond is left out and counted in \
                   nodemedic_series_dropped_total.",
        },
        Key {
            name: "bpf_stats",
            allowed: Allowed::Switch,
            help: "Have the kernel count and time each run of each BPF program of this machine, \
                   not the agent's alone. It costs some 20 ns a run, and ends with the agent.",
        },
    ];
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            max_series: 5_000,
            bpf_stats: false,
        }
    }
}
