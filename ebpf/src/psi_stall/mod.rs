//! ABI of `psi_stall`: who waits for memory, by which path of the kernel, and how long.

use crate::shared::{abi, histogram::Histogram, label_values, losses, offsets};

/// Buckets of all histograms: 16 µs, 32 µs, … 4.2 s, and all above.
pub const BUCKETS: usize = 20;

/// The unit of their bounds, nanoseconds.
pub const UNIT_NS: u64 = 16_000;

/// Frames of the kernel's stack that are kept of a wait, the innermost first. The first
/// few are of the probe itself.
pub const FRAMES: usize = 12;

/// The length of a task's command with its final zero (`TASK_COMM_LEN`,
/// include/linux/sched.h).
pub const COMMAND: usize = 16;

/// Where the members lie in the structures of the running kernel, in bytes, or
/// [`UNKNOWN`](crate::shared::UNKNOWN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.psi_flags`: what pressure stall information has the task do, 32 bits.
    pub task_psi_flags: u32,
    /// `task_struct.comm`
    pub task_command: u32,
    /// `task_struct.cgroups`: pointer to a `css_set`.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`: pointer to the cgroup of version 2.
    pub css_set_cgroup: u32,
    /// `cgroup.kn`: pointer to a `kernfs_node`.
    pub cgroup_node: u32,
    /// `kernfs_node.id`: 64 bits.
    pub node_id: u32,
}

/// What a task does while tasks are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Doing {
    /// It could run, and has no CPU.
    WaitsForCpu = 0,
    /// It waits for a disk.
    WaitsForIo = 1,
    /// It runs.
    Runs = 2,
}

label_values! {
    /// Why a wait is missing from the counts, or its cause is.
    pub enum Loss {
        /// A wait whose end was not seen.
        Call = "call",
        /// The stack was not taken: the wait is counted, with an unknown cause.
        Stack = "stack",
        /// The map of waits took no more: the wait is in the histogram alone.
        Waiter = "waiter",
        /// Memory of the kernel could not be read: the wait is not counted.
        Read = "read",
        /// The map of what tasks did took no more.
        Task = "task",
    }
}

/// A wait for memory that is under way, by thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stall {
    /// Where the caller of `psi_memstall_enter` keeps its flags: on its stack, so that it
    /// tells one wait from another that is nested in it.
    pub flags: u64,
    /// When it began. `CLOCK_MONOTONIC`, nanoseconds.
    pub began_ns: u64,
    /// Id of the cgroup of version 2: the inode number of its folder.
    pub cgroup: u64,
    /// Command of the thread, ended by zeros.
    pub command: [u8; COMMAND],
    /// Id of the stack, or a negative error number.
    pub stack: i32,
    /// 1 where memory was compacted meanwhile, else 0.
    pub compacts: u32,
}

/// Whose waits are added up, and between which readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Waiter {
    /// Id of the cgroup of version 2: the inode number of its folder.
    pub cgroup: u64,
    /// Command of the thread, ended by zeros.
    pub command: [u8; COMMAND],
    /// Id of the stack, or a negative error number.
    pub stack: i32,
    /// 1 where memory was compacted meanwhile, else 0: the compiler may have made one
    /// function of compaction and reclaim, and the stack does not tell then.
    pub compacts: u32,
    /// Rises at each reading.
    pub epoch: u64,
}

/// A wait of a task for a CPU or a disk that is under way, by the address of its
/// `task_struct`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Waiting {
    /// When it began. `CLOCK_MONOTONIC`, nanoseconds.
    pub began_ns: u64,
    /// What for, a [`Doing`].
    pub doing: u64,
}

/// Whose doings are added up, and between which readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Task {
    /// As of [`Waiter`].
    pub cgroup: u64,
    /// As of [`Waiter`].
    pub command: [u8; COMMAND],
    /// What they did, a [`Doing`].
    pub doing: u64,
    /// Rises at each reading.
    pub epoch: u64,
}

/// Waits of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sum {
    /// How many ended.
    pub count: u64,
    /// Their time, nanoseconds.
    pub ns: u64,
    /// The longest of them, nanoseconds.
    pub longest_ns: u64,
}

/// All counts of one CPU since the probes were attached.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Totals {
    /// Waits for memory.
    pub memory: Histogram<BUCKETS>,
    /// Events lost, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
}

losses!(Totals, Loss);
offsets!(Offsets);

abi!(Offsets, Stall, Waiter, Waiting, Task, Sum, Totals);
