//! ABI of `ipvs_estimation`: how long each pass of the IPVS estimator holds its
//! CPU, and who waits for that CPU meanwhile.

use crate::shared::{UNKNOWN, abi, histogram::Histogram, label_values, losses, offsets};

/// Buckets of all histograms: 8 µs, 16 µs, … 2.1 s, and all above.
pub const BUCKETS: usize = 20;

/// The unit of their bounds, nanoseconds.
pub const UNIT_NS: u64 = 8_000;

/// Intervals of a kind that a CPU remembers. Passes come every 2 s for each network
/// namespace, and the agent reads more often than that adds up to.
pub const REMEMBERED: usize = 16;

/// Where the members lie in the structures of the running kernel, in bytes, or
/// [`UNKNOWN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `netns_ipvs.est_timer`: the timer whose function is a pass.
    pub ipvs_est_timer: u32,
    /// `netns_ipvs.net`: pointer to the network namespace.
    pub ipvs_net: u32,
    /// `netns_ipvs.sysctl_run_estimation`: 0 while passes only come and go, 32 bits.
    pub ipvs_run_estimation: u32,
    /// `netns_ipvs.num_services`: services of IPv4, 32 bits.
    pub ipvs_services: u32,
    /// `net.ns.inum`: the number that `/proc/<pid>/ns/net` shows.
    pub net_inum: u32,
    /// `task_struct.thread_info.cpu` or `task_struct.cpu`: where the task is to run.
    pub task_cpu: u32,
}

impl Offsets {
    /// Whether a timer tells its network namespace.
    #[inline(always)]
    pub const fn tell_namespaces(&self) -> bool {
        self.ipvs_est_timer != UNKNOWN && self.ipvs_net != UNKNOWN && self.net_inum != UNKNOWN
    }
}

label_values! {
    /// In what a pass runs.
    #[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize))]
    #[cfg_attr(feature = "user", serde(rename_all = "snake_case"))]
    pub enum Context {
        /// The timer softirq: nothing else runs on the CPU but interrupts.
        Softirq = "softirq",
        /// A kworker, under a spin lock: packets are received, tasks wait.
        Workqueue = "workqueue",
        /// A kernel thread that gives way after each chain of estimators.
        Kthread = "kthread",
    }
}

label_values! {
    /// Why an event is missing from the counts.
    pub enum Loss {
        /// Kernel memory could not be read: a pass is of no namespace, or a wake-up is
        /// not counted.
        Read = "read",
        /// A pass whose end was not seen, or whose begin found no room. One that is under way
        /// when anybody attaches to its function ends unseen: it returns through the trampoline
        /// that was, which is told to leave the probes out (`bpf_tramp_image_put`,
        /// kernel/bpf/trampoline.c).
        Call = "call",
        /// The map of namespaces took no more: the pass is counted, but in none.
        Namespace = "namespace",
        /// The map of waiting tasks took no more.
        Wait = "wait",
    }
}

/// What the agent tells the programs while they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Rises at each reading.
    pub epoch: u64,
    /// Since when waits are traced; what began before is left out. `CLOCK_MONOTONIC`,
    /// nanoseconds.
    pub traced_since_ns: u64,
}

/// What runs on one CPU now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mark {
    /// When the pass began that runs now; 0 while none does. `CLOCK_MONOTONIC`,
    /// nanoseconds, as all times here.
    pub began_ns: u64,
    /// Address of its timer or work.
    pub object: u64,
    /// When the last pass ended.
    pub ended_ns: u64,
    /// The first `softirq_raise` of `NET_RX` that is not served yet; 0 while none waits,
    /// or waits are not traced.
    pub rx_raised_ns: u64,
}

/// A time that something took on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interval {
    /// Its begin.
    pub began_ns: u64,
    /// Its length, nanoseconds.
    pub ns: u64,
}

/// The last intervals that were slow, overwritten in turn.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ring {
    /// Intervals written so far.
    pub written: u64,
    /// The last of them; the next is written at `written % REMEMBERED`.
    pub intervals: [Interval; REMEMBERED],
}

/// The slow intervals of one CPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Slow {
    /// Passes.
    pub passes: Ring,
    /// From the raise of a receive softirq to its entry.
    pub rx_waits: Ring,
    /// From the interruption or the wake-up of a task to its run.
    pub task_waits: Ring,
}

/// The longest pass of one CPU between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Longest {
    /// Between which: [`Control::epoch`].
    pub epoch: u64,
    /// When, and how long.
    pub pass: Interval,
}

/// All counts of one CPU since the probes were attached.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Totals {
    /// Durations of passes, by [`Context`].
    pub passes: [Histogram<BUCKETS>; Context::ALL.len()],
    /// Waits of receive softirqs.
    pub rx_waits: Histogram<BUCKETS>,
    /// Waits of tasks.
    pub task_waits: Histogram<BUCKETS>,
    /// Of this epoch and of the one before, by parity.
    pub longest: [Longest; 2],
    /// Events lost, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
}

/// The passes of one network namespace, by its inode number, or by the address of
/// its timer where that is all that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NamespacePasses {
    /// Passes that visited the estimators.
    pub passes: u64,
    /// Their time, nanoseconds.
    pub sum_ns: u64,
    /// Passes that did not, as `run_estimation` was 0.
    pub skipped: u64,
    /// Whether the last one did, 1 or 0.
    pub estimating: u64,
    /// Services of IPv4 at the last one; 0 where the kernel does not tell.
    pub services: u64,
}

/// A task that was woken while a pass held its CPU, by the address of its `task_struct`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Wakeup {
    /// When.
    pub ns: u64,
}

losses!(Totals, Loss);
offsets!(Offsets);

abi!(
    Offsets,
    Control,
    Mark,
    Interval,
    Ring,
    Slow,
    Longest,
    Totals,
    NamespacePasses,
    Wakeup,
);
