//! The ailment's table of the configuration.

use std::time::Duration;

use crate::{
    kernel::bpf::Hook,
    keys::{Allowed, HOUR, MILLISECOND, MINUTE, SECOND, count, settings, shared_help, time},
};

settings! {
    /// Limits of the verdict, triggers, tracing, and limits of the scan.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::RawTracepoint, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "raw_tracepoint", "kprobe"]);
        /// Report `cpu_contention` or `cpu_throttled` when tasks waited for a CPU for more than
        /// this share of the time.
        cpu_ratio: f64 = 0.4;
        /// Report `memory_reclaim` or `memory_limit` when tasks waited for memory for more than
        /// this share of the time.
        memory_ratio: f64 = 0.1;
        /// Report `io_stall` when tasks waited for a disk for more than this share of the time.
        io_ratio: f64 = 0.4;
        /// Report a stall of any kind as critical from this share of the time on.
        critical_ratio: f64 = 0.7;
        /// Show a cgroup in reports, and in series of its own, when its tasks waited or ran for
        /// more than this share of the time.
        floor_ratio: f64 = 0.01;
        /// Set PSI triggers on the node, so that the agent takes a reading at once when PSI exceeds
        /// a ratio above within 1 s. Such readings are at least 1 s apart.
        triggers: bool = true;
        /// Limit the cgroups with PSI triggers of their own, at the same ratios. The agent selects
        /// the cgroups that waited most in the recent past: a stall in one cgroup can be too small
        /// to show in the pressure of a large node. The kernel runs one thread for each, which
        /// sleeps while no task waits.
        trigger_cgroups: u32 = 16, in count(0..=256);
        /// Trace the scheduler for this long when tasks wait for CPUs or disks for more than the
        /// ratios above. A trace shows which commands wait and which run. `0s`: no traces.
        trace_duration: Duration = Duration::from_secs(3), in time(Duration::ZERO..=MINUTE);
        /// Set the time from the end of a trace until the next trace may start.
        trace_cooldown: Duration = Duration::from_secs(30), in time(SECOND..=HOUR);
        /// Limit the cgroups with series of their own, 7 series each. All further cgroups share
        /// one, `other`.
        top_cgroups: u32 = 50, in count(0..=500);
        /// Limit the cgroups in one scan, about 0.5 KiB of memory each.
        max_cgroups: u32 = 50_000, in count(16..=1_000_000);
        /// Limit the CPU time of all scans of the cgroup tree to this share of one core, in any
        /// minute, apart from the first reading of each cgroup after the start. A scan that reaches
        /// the limit ends; the next scan first reads the cgroups that the last reports named, and
        /// then continues where this scan ended.
        scan_cpu_ratio: f64 = 0.005;
        /// Limit the time for one scan of the cgroup tree. The next scan continues as above.
        scan_timeout: Duration = Duration::from_millis(500),
            in time(MILLISECOND..=Duration::from_secs(10));
    }
}
