//! The ailment's table of the configuration.

use std::time::Duration;

use crate::{
    kernel::bpf::Hook,
    keys::{Allowed, DAY, MILLISECOND, MINUTE, SECOND, count, settings, shared_help, time},
};

settings! {
    /// Hooks, sizes of the maps and limits of the verdict.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "kprobe"]);
        /// Limit the flows (network namespace, port, source) in the kernel's map, about 0.1 KiB of
        /// kernel memory each. A full map evicts the least recently used flow. The agent counts
        /// what that flow created since the last tick as `other`.
        max_flows: u32 = 8_192, in count(16..=1_048_576);
        /// Limit the conntrack entries with a known time of creation, about 0.1 KiB of kernel
        /// memory each. Lifetimes need that time; the agent counts lifetimes beyond the limit as
        /// lost.
        max_tracked_entries: u32 = 65_536, in count(16..=4_194_304);
        /// Limit the flows with series of their own. All further flows share one series, `other`.
        top_flows: u32 = 100, in count(0..=1_000);
        /// Set the time between two scans of the whole conntrack table through ctnetlink. `0s`: no
        /// scans.
        scan_interval: Duration = MINUTE, in time(Duration::ZERO..=DAY);
        #[doc = shared_help!(scan_timeout)]
        scan_timeout: Duration = Duration::from_millis(500),
            in time(MILLISECOND..=Duration::from_secs(10));
        /// Report `table_filling` when the table will be full within this time.
        table_filling_within: Duration = Duration::from_secs(600), in time(SECOND..=DAY);
        /// Report `table_filling` when more than this share of the table is in use.
        table_filling_ratio: f64 = 0.9;
        /// Report `few_buckets` when the mean hash chain of the table is longer than this: entries
        /// of all network namespaces, each twice, by `nf_conntrack_buckets`.
        few_buckets_chain_length: u32 = 20, in count(1..=1_000);
        /// Report `idle_entries` when more than this share of the entries is idle after the end of
        /// a flow, and the table exceeds idle_entries_usage_ratio too.
        idle_entries_ratio: f64 = 0.5;
        /// Report `idle_entries` only when more than this share of the table is in use.
        idle_entries_usage_ratio: f64 = 0.1;
    }
}
