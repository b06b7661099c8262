//! The ailment's table of the configuration.

use crate::{
    kernel::bpf::Hook,
    keys::{Allowed, count, settings, shared_help},
};

settings! {
    /// Hooks, sizes of the maps and limits of the verdict.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "kprobe"]);
        /// Limit the listeners in the kernel's map, about 0.1 KiB of kernel memory each. A full map
        /// evicts the least recently used listener.
        max_listeners: u32 = 1_024, in count(16..=65_536);
        /// Limit the listeners with series of their own. All further listeners share one series,
        /// `other`.
        top_listeners: u32 = 20, in count(0..=1_000);
        /// Report `backlog_full` when full listeners drop at least this many connection requests
        /// between two readings.
        min_drops: u32 = 10, in count(1..=1_000_000);
    }
}
