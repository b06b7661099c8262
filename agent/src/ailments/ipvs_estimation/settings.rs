//! The ailment's table of the configuration.

use std::time::Duration;

use crate::{
    config::{Allowed, DAY, MILLISECOND, MINUTE, SECOND, settings, shared_help, time, words},
    kernel::bpf::Hook,
};

settings! {
    /// Hooks, the watch over waits, and limits of the verdict.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::RawTracepoint, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "raw_tracepoint", "kprobe"]);
        /// A pass that takes as long as this is slow. The verdict is stalling when packets or tasks
        /// waited for as long, and at_risk when a pass is predicted to take it.
        slow: Duration = Duration::from_millis(10), in time(MILLISECOND..=Duration::from_secs(10));
        /// When to watch who waits, which takes programs on softirqs and switches of tasks: while
        /// passes are slow or predicted to be, always, or never.
        watch: WatchWhen = WatchWhen::Slow;
        /// How long the watch goes on after the last slow pass.
        watch_for: Duration = MINUTE, in time(SECOND..=DAY);
        /// Time between two counts of the services and destinations.
        census_interval: Duration = Duration::from_secs(30), in time(SECOND..=DAY);
        /// The longest that one count may take. The next waits for at least 200 times as long as
        /// one took.
        census_limit: Duration = SECOND, in time(MILLISECOND..=Duration::from_secs(10));
        /// The verdict is busy when the threads of the estimator (Linux 6.2 and later) take more
        /// than this share of one CPU.
        busy_ratio: f64 = 0.25;
    }
}

words! {
    /// When the tracepoints are attached that tell who waits.
    pub enum WatchWhen {
        /// While passes are slow, or predicted to be.
        Slow = "slow",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}
