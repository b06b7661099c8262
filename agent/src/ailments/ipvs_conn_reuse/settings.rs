//! The ailment's table of the configuration.

use std::time::Duration;

use super::dead::Limits;
use crate::{
    config::{Allowed, DAY, HOUR, MILLISECOND, MINUTE, SECOND, count, settings, shared_help, time},
    kernel::bpf::Hook,
};

settings! {
    /// Hooks, sizes of the maps and limits of the verdict.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "kprobe"]);
        /// Pairs of a virtual service and an old destination that the kernel tells apart at one
        /// time, about 0.2 KiB of kernel memory each. Beyond it the least used is forgotten, and
        /// what it had since the last tick is counted as other.
        max_services: u32 = 4_096, in count(16..=1_048_576);
        /// Client addresses that the kernel tells apart at one time, likewise, about 0.1 KiB each.
        max_clients: u32 = 8_192, in count(16..=1_048_576);
        /// Clients whose SYN was dropped and that have no connection yet, about 0.2 KiB of kernel
        /// memory each. Delays beyond it are counted as lost.
        max_waiting: u32 = 16_384, in count(16..=1_048_576);
        /// Pairs of a virtual service and an old destination that metrics show; all others are one
        /// series, other.
        top_services: u32 = 50, in count(0..=1_000);
        /// Client addresses that metrics show; all others are one series, other.
        top_clients: u32 = 50, in count(0..=1_000);
        // With the usual 6 retries the last SYN goes out after 63 s, and connect()
        // fails after 127 s (net.ipv4.tcp_syn_retries).
        /// A client that has no connection this long after its first dropped SYN is counted as
        /// never connected. Linux gives up after 127 s by default.
        give_up_after: Duration = Duration::from_secs(130), in time(SECOND..=HOUR);
        // What IPVS keeps an established connection for that is idle (`tcp_timeouts`,
        // ip_vs_proto_tcp.c).
        /// Where expire_nodest_conn is 0, every packet of IPVS is looked at for this long after a
        /// destination was drained or removed, and while any is drained. IPVS keeps an idle
        /// connection for 15 minutes by default.
        watch_for: Duration = Duration::from_secs(900), in time(SECOND..=DAY);
        /// Time between two counts of the services and their destinations, which tell whether any
        /// is drained.
        survey_interval: Duration = Duration::from_secs(10), in time(SECOND..=DAY);
        /// The longest that one count may take. The next waits for at least 200 times as long as it
        /// took.
        survey_limit: Duration = Duration::from_millis(100),
            in time(MILLISECOND..=Duration::from_secs(10));
        /// A verdict holds for this long after the last SYN that it rests on.
        remember: Duration = MINUTE, in time(SECOND..=HOUR);
        /// The verdict delayed is critical when more SYNs than this were dropped within the time of
        /// remember.
        critical_drops: u32 = 30, in count(0..=1_000_000);
        /// Conntrack entries of dead connections that the treatment sweep_dead opens in a second,
        /// in each network namespace, at the most. What is beyond waits for the next pass, and is
        /// counted.
        sweep_rate: u32 = 1_000, in count(1..=100_000);
        /// Connections that have ended which the treatment sweep_dead looks at in one pass, and
        /// remembers, about 0.1 KiB of memory each. Passes are a second apart, or fifty times as
        /// long as one takes.
        sweep_connections: u32 = 65_536, in count(16..=1_048_576);
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
}
