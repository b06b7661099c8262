//! The ailment's table of the configuration.

use std::time::Duration;

use crate::{
    kernel::bpf::Hook,
    keys::{Allowed, DAY, MILLISECOND, MINUTE, SECOND, settings, shared_help, time, words},
};

settings! {
    /// Hooks, tracing of waits, and limits of the verdict.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::RawTracepoint, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "raw_tracepoint", "kprobe"]);
        /// Set the duration that makes a pass of the estimator slow. The agent reports
        /// `estimator_stall` when packets or tasks waited that long, and `at_risk` when it predicts
        /// a slow pass.
        slow_threshold: Duration = Duration::from_millis(10), in time(MILLISECOND..=Duration::from_secs(10));
        /// Select when to trace which packets and tasks wait, by programs on softirqs and task
        /// switches. `slow`: while passes are slow or predicted to be. `always`: all the time.
        /// `never`: not at all.
        trace_when: TraceWhen = TraceWhen::Slow;
        /// Keep tracing for this long after the last slow pass.
        trace_linger: Duration = MINUTE, in time(SECOND..=DAY);
        /// Set the time between two scans of the IPVS services and their destinations.
        scan_interval: Duration = Duration::from_secs(30), in time(SECOND..=DAY);
        #[doc = shared_help!(scan_timeout)]
        scan_timeout: Duration = SECOND, in time(MILLISECOND..=Duration::from_secs(10));
        /// Report `estimator_cpu` when the threads of the estimator (Linux 6.2 and later) take more
        /// than this share of one CPU.
        estimator_cpu_ratio: f64 = 0.25;
    }
}

words! {
    /// When the tracepoints are attached that tell who waits.
    pub enum TraceWhen {
        /// While passes are slow, or predicted to be.
        Slow = "slow",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}
