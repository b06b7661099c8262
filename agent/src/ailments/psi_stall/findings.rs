//! The kinds of finding, worst first.

use super::judge::{
    CPU_CONTENTION, CPU_THROTTLED, IO_STALL, IRQ_PRESSURE, MEMORY_LIMIT, MEMORY_RECLAIM,
};
use crate::model::FindingKind;

pub(super) const FINDINGS: &[FindingKind] = &[
    FindingKind {
        kind: MEMORY_RECLAIM,
        severity: "critical from critical_ratio on, or where nobody made progress; a warning where nothing explains it",
        numbers: "tasks waited for memory for more than memory_ratio without the work of kswapd, and allocstall, refaults or swapping rose",
        not: "the limit of a cgroup; kswapd at work, which the kernel counts as a wait of the node",
    },
    FindingKind {
        kind: MEMORY_LIMIT,
        severity: "as memory_reclaim",
        numbers: "tasks of a cgroup waited for memory for more than memory_ratio, and memory.events of it or of one above it counted high or max",
        not: "a node that is short of memory: there the limit was not met",
    },
    FindingKind {
        kind: IO_STALL,
        severity: "as memory_reclaim",
        numbers: "tasks waited for I/O for more than io_ratio; a disk was busy for half of that, a limit was met, or tasks sleep in a network file system",
        not: "an idle io_uring, which slows nobody and is a note; an idle disk beside a file server that does not answer",
    },
    FindingKind {
        kind: CPU_THROTTLED,
        severity: "as memory_reclaim",
        numbers: "tasks waited for a CPU for more than cpu_ratio, and nr_throttled of nr_periods of cpu.stat explains it",
        not: "throttled_usec, which is a sum over CPUs and no part of the time",
    },
    FindingKind {
        kind: CPU_CONTENTION,
        severity: "as memory_reclaim",
        numbers: "tasks waited for a CPU for more than cpu_ratio, and /proc/stat shows busy CPUs, steal, or idle CPUs outside of a CPU set",
        not: "a quota; times of /proc/stat that cannot be true, which are not used",
    },
    FindingKind {
        kind: IRQ_PRESSURE,
        severity: "as memory_reclaim",
        numbers: "interrupts and softirqs took more than cpu_ratio of the time of all CPUs, or critical_ratio of one, by /proc/pressure/irq or /proc/stat",
        not: "system time of tasks",
    },
];
