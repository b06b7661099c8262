//! The ailment's table of the configuration.

use std::time::Duration;

use crate::{
    config::{Allowed, HOUR, MILLISECOND, MINUTE, SECOND, count, settings, shared_help, time},
    kernel::bpf::Hook,
};

settings! {
    /// Limits of the verdict and of the walk.
    pub struct Settings {
        #[doc = shared_help!(hooks)]
        hooks: Vec<Hook> = vec![Hook::Fentry, Hook::RawTracepoint, Hook::Kprobe],
            in Allowed::SomeOf(&["fentry", "raw_tracepoint", "kprobe"]);
        /// The verdict is cpu_contention, or cpu_throttled, when tasks waited for a CPU for more
        /// than this share of the time.
        cpu_ratio: f64 = 0.4;
        /// The verdict is memory_reclaim, or memory_limit, when tasks waited for memory for more
        /// than this share of the time.
        memory_ratio: f64 = 0.1;
        /// The verdict is io_stall when tasks waited for a disk for more than this share of the
        /// time.
        io_ratio: f64 = 0.4;
        /// A stall of any kind is critical from this share of the time on.
        critical_ratio: f64 = 0.7;
        /// A cgroup takes part in a report, and gets series of its own, when its tasks waited, or
        /// ran, for more than this share of the time.
        floor_ratio: f64 = 0.01;
        /// Whether a reading is taken as soon as tasks of the node have waited for more than one of
        /// the ratios above of a second, which the kernel then calls for: at most once a second,
        /// and as long as it lasts.
        armed: bool = true;
        /// Cgroups for which the kernel calls as well, at the same ratios: those that have waited
        /// most lately, since what waits in one of them may be too little to be seen in the
        /// pressure of a big node. The kernel has a thread for each, which sleeps while nobody
        /// waits.
        armed_cgroups: u32 = 16, in count(0..=256);
        /// How long the tracepoints of the scheduler are attached when tasks wait for CPUs or disks
        /// for more than the ratios above: they tell which commands wait, and which run. 0s: never.
        watch_for: Duration = Duration::from_secs(3), in time(Duration::ZERO..=MINUTE);
        /// How long they are not attached again after that, whoever waits.
        watch_pause: Duration = Duration::from_secs(30), in time(SECOND..=HOUR);
        /// Cgroups that metrics show, 7 series each; all others are one, other.
        top_cgroups: u32 = 50, in count(0..=500);
        /// Cgroups that are looked at in one walk, about 0.5 KiB of memory each.
        max_cgroups: u32 = 20_000, in count(16..=1_000_000);
        /// The longest that one walk of the tree of cgroups may take. What was not reached then is
        /// looked at in the next.
        walk_limit: Duration = Duration::from_millis(500),
            in time(MILLISECOND..=Duration::from_secs(10));
    }
}
