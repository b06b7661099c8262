//! The ailment's table of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dead::Limits;
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
    /// Pairs of a service and an old destination that the kernel tells apart.
    pub max_services: u32,
    /// Clients that the kernel tells apart.
    pub max_clients: u32,
    /// Clients without a new connection that are remembered.
    pub max_waiting: u32,
    /// Pairs of a service and an old destination that metrics show.
    pub top_services: u32,
    /// Clients that metrics show.
    pub top_clients: u32,
    /// When a client that waits is taken to have given up.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
    /// How long connections to a destination that was removed are looked out for.
    #[serde(with = "humantime_serde")]
    pub watch_for: Duration,
    /// Time between two counts of the services.
    #[serde(with = "humantime_serde")]
    pub survey_interval: Duration,
    /// The longest that one count may take.
    #[serde(with = "humantime_serde")]
    pub survey_limit: Duration,
    /// How long a verdict holds after what it rests on.
    #[serde(with = "humantime_serde")]
    pub remember: Duration,
    /// `delayed` is critical when more SYNs than this were dropped.
    pub critical_drops: u32,
    /// Conntrack entries of dead connections that are opened in a second.
    pub sweep_rate: u32,
    /// Connections that are looked at for that in one pass.
    pub sweep_connections: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hooks: vec![Hook::Fentry, Hook::Kprobe],
            max_services: 4_096,
            max_clients: 8_192,
            max_waiting: 16_384,
            top_services: 50,
            top_clients: 50,
            // With the usual 6 retries the last SYN goes out after 63 s, and connect()
            // fails after 127 s (net.ipv4.tcp_syn_retries).
            give_up_after: Duration::from_secs(130),
            // What IPVS keeps an established connection for that is idle (`tcp_timeouts`,
            // ip_vs_proto_tcp.c).
            watch_for: Duration::from_secs(900),
            survey_interval: Duration::from_secs(10),
            survey_limit: Duration::from_millis(100),
            remember: Duration::from_secs(60),
            critical_drops: 30,
            sweep_rate: 1_000,
            sweep_connections: 65_536,
        }
    }
}

impl Settings {
    /// How much the treatment `sweep_dead` may do.
    pub fn sweep_limits(&self) -> Limits {
        Limits {
            a_second: self.sweep_rate,
            connections: self.sweep_connections,
        }
    }

    /// What may stand in the table.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "hooks",
            allowed: Allowed::SomeOf(&["fentry", "kprobe"]),
            help: "Hooks that may be used, the preferred first. With none the ailment is measured \
                   by its baseline alone.",
        },
        Key {
            name: "max_services",
            allowed: Allowed::Count {
                min: 16,
                max: 1_048_576,
            },
            help: "Pairs of a virtual service and an old destination that the kernel tells apart \
                   at one time, about 0.2 KiB of kernel memory each. Beyond it the least used is \
                   forgotten, and what it had since the last tick is counted as other.",
        },
        Key {
            name: "max_clients",
            allowed: Allowed::Count {
                min: 16,
                max: 1_048_576,
            },
            help: "Client addresses that the kernel tells apart at one time, likewise, about 0.1 \
                   KiB each.",
        },
        Key {
            name: "max_waiting",
            allowed: Allowed::Count {
                min: 16,
                max: 1_048_576,
            },
            help: "Clients whose SYN was dropped and that have no connection yet, about 0.2 KiB \
                   of kernel memory each. Delays beyond it are counted as lost.",
        },
        Key {
            name: "top_services",
            allowed: Allowed::Count { min: 0, max: 1_000 },
            help: "Pairs of a virtual service and an old destination that metrics show; all \
                   others are one series, other.",
        },
        Key {
            name: "top_clients",
            allowed: Allowed::Count { min: 0, max: 1_000 },
            help: "Client addresses that metrics show; all others are one series, other.",
        },
        Key {
            name: "give_up_after",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(3_600),
            },
            help: "A client that has no connection this long after its first dropped SYN is \
                   counted as never connected. Linux gives up after 127 s by default.",
        },
        Key {
            name: "watch_for",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(86_400),
            },
            help: "Where expire_nodest_conn is 0, every packet of IPVS is looked at for this long \
                   after a destination was drained or removed, and while any is drained. IPVS \
                   keeps an idle connection for 15 minutes by default.",
        },
        Key {
            name: "survey_interval",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(86_400),
            },
            help: "Time between two counts of the services and their destinations, which tell \
                   whether any is drained.",
        },
        Key {
            name: "survey_limit",
            allowed: Allowed::Time {
                min: Duration::from_millis(1),
                max: SECOND.saturating_mul(10),
            },
            help: "The longest that one count may take. The next waits for at least 200 times as \
                   long as it took.",
        },
        Key {
            name: "remember",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(3_600),
            },
            help: "A verdict holds for this long after the last SYN that it rests on.",
        },
        Key {
            name: "critical_drops",
            allowed: Allowed::Count {
                min: 0,
                max: 1_000_000,
            },
            help: "The verdict delayed is critical when more SYNs than this were dropped within \
                   the time of remember.",
        },
        Key {
            name: "sweep_rate",
            allowed: Allowed::Count {
                min: 1,
                max: 100_000,
            },
            help: "Conntrack entries of dead connections that the treatment sweep_dead opens in a \
                   second, in each network namespace, at the most. What is beyond waits for the \
                   next pass, and is counted.",
        },
        Key {
            name: "sweep_connections",
            allowed: Allowed::Count {
                min: 16,
                max: 1_048_576,
            },
            help: "Connections that have ended which the treatment sweep_dead looks at in one \
                   pass, and remembers, about 0.1 KiB of memory each. Passes are a second apart, \
                   or fifty times as long as one takes.",
        },
    ];
}
