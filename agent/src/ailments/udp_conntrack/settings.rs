//! The ailment's table of the configuration.

use std::time::Duration;

use crate::{
    config::{Allowed, DAY, MILLISECOND, MINUTE, SECOND, count, settings, shared_help, time},
    kernel::bpf::Hook,
};

settings! {
    /// Hooks, sizes of the maps and limits of the verdict.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "kprobe"]);
        /// Flows (network namespace, port, source) that the kernel tells apart at one time, about
        /// 0.1 KiB of kernel memory each. Beyond it the least used is forgotten, and what it made
        /// since the last tick is counted as other.
        max_flows: u32 = 8_192, in count(16..=1_048_576);
        /// Entries whose time of creation is remembered, for their lifetimes, about 0.1 KiB of
        /// kernel memory each. Lifetimes beyond it are counted as lost.
        max_births: u32 = 65_536, in count(16..=4_194_304);
        /// Flows that metrics show; all others are one series, other.
        top_flows: u32 = 100, in count(0..=1_000);
        /// Time between two walks of the whole table through ctnetlink; "0s" switches them off.
        snapshot_interval: Duration = MINUTE, in time(Duration::ZERO..=DAY);
        /// The longest that one walk may take. The next waits for at least 200 times as long as a
        /// walk took.
        snapshot_limit: Duration = Duration::from_millis(500),
            in time(MILLISECOND..=Duration::from_secs(10));
        /// The verdict is filling when the table will be full in less than this.
        filling_within: Duration = Duration::from_secs(600), in time(SECOND..=DAY);
        /// The verdict is filling when more than this share of the table is in use.
        filling_ratio: f64 = 0.9;
        /// The verdict is wasteful when more than this share of the entries stand idle after a flow
        /// that is over,
        wasteful_ratio: f64 = 0.5;
        /// and more than this share of the table is in use.
        wasteful_usage_ratio: f64 = 0.1;
    }
}
