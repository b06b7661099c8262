//! The ailment's table of the configuration.

use std::time::Duration;

use super::dead::Limits;
use crate::{
    kernel::bpf::Hook,
    keys::{Allowed, DAY, HOUR, MILLISECOND, MINUTE, SECOND, count, settings, shared_help, time},
};

settings! {
    /// Hooks, sizes of the maps and limits of the verdict.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "kprobe"]);
        /// Limit the pairs of a virtual service and an old destination in the kernel's map, about
        /// 0.2 KiB of kernel memory each. A full map evicts the least recently used pair. The agent
        /// counts the events of that pair since the last tick as `other`.
        max_services: u32 = 4_096, in count(16..=1_048_576);
        /// Limit the client addresses in the kernel's map, about 0.1 KiB of kernel memory each. A
        /// full map evicts the least recently used address.
        max_clients: u32 = 8_192, in count(16..=1_048_576);
        /// Limit the clients between a dropped SYN and their next connection, about 0.2 KiB of
        /// kernel memory each. The agent counts delays beyond the limit as lost.
        max_waiting: u32 = 16_384, in count(16..=1_048_576);
        /// Limit the UDP flows on drained or removed destinations that the agent tells apart, about
        /// 0.2 KiB of kernel memory each. The agent counts further flows, but not whether they are
        /// in use.
        max_udp_flows: u32 = 4_096, in count(16..=1_048_576);
        /// Limit the pairs of a virtual service and an old destination with series of their own.
        /// All further pairs share one series, `other`.
        top_services: u32 = 50, in count(0..=1_000);
        /// Limit the client addresses with series of their own. All further addresses share one
        /// series, `other`.
        top_clients: u32 = 50, in count(0..=1_000);
        // With the usual 6 retries the last SYN goes out after 63 s, and connect()
        // fails after 127 s (net.ipv4.tcp_syn_retries).
        /// Count a client as given up when it has no connection this long after its first dropped
        /// SYN. Linux gives up after 127 s by default.
        give_up_after: Duration = Duration::from_secs(130), in time(SECOND..=HOUR);
        // What IPVS keeps an established connection for that is idle (`tcp_timeouts`,
        // ip_vs_proto_tcp.c).
        /// Where expire_nodest_conn is 0, trace every IPVS packet while a destination is drained,
        /// and for this long after a destination was drained or removed. IPVS keeps an idle
        /// connection for 15 minutes by default.
        trace_linger: Duration = Duration::from_secs(900), in time(SECOND..=DAY);
        /// Set the time between two scans of the IPVS services and their destinations. A scan finds
        /// drained destinations.
        scan_interval: Duration = Duration::from_secs(10), in time(SECOND..=DAY);
        #[doc = shared_help!(scan_timeout)]
        scan_timeout: Duration = Duration::from_millis(100),
            in time(MILLISECOND..=Duration::from_secs(10));
        /// Report a finding for this long after the last SYN that caused it.
        window: Duration = MINUTE, in time(SECOND..=HOUR);
        /// Report `delayed` as critical when more SYNs than this were dropped within window.
        critical_drops: u32 = 30, in count(0..=1_000_000);
        /// Report `udp_drained` when clients still use UDP flows to a drained server after this
        /// time. The agent reports a server that does not answer at once.
        udp_drained_after: Duration = MINUTE, in time(SECOND..=HOUR);
        /// Limit the conntrack entries that the treatment sweep_dead marks reusable per second in
        /// each network namespace. Further entries wait for the next pass, and the agent counts
        /// them.
        sweep_rate: u32 = 1_000, in count(1..=100_000);
        /// Limit the ended connections that the treatment sweep_dead checks in one pass and keeps
        /// in memory, about 0.1 KiB each. Passes start 1 s apart, or 50 times the duration of a
        /// pass.
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
