//! What a person can do against it, beside the treatments.

use super::measure::{DiskReading, NodeReading};

/// Advice for a node that is short of memory, safest first.
pub(super) fn for_reclaim() -> Vec<String> {
    vec![
        "set memory.high of the largest allocator (in Kubernetes a memory limit) near what it \
         needs, so that it reclaims its own pages and not those of others; undo: set max"
            .to_owned(),
        "set memory.low of the cgroups that wait near what they need (in Kubernetes memory \
         requests with MemoryQoS): the kernel reclaims other pages first; undo: set 0"
            .to_owned(),
        "run less on this node, or add memory".to_owned(),
    ]
}

/// Advice for a cgroup at its limit. No sysctl helps.
pub(super) fn for_limit(path: &str, name: &str, value: u64) -> Vec<String> {
    let more = value.saturating_mul(3) / 2;
    vec![
        "no sysctl helps: this is the cgroup's own memory limit".to_owned(),
        format!(
            "raise it if the node has free memory: echo {more} > /sys/fs/cgroup{path}/{name} (in \
             Kubernetes resources.limits.memory; systemd: MemoryHigh=, MemoryMax=); undo: echo \
             {value} > /sys/fs/cgroup{path}/{name}"
        ),
        "reduce what the largest allocator needs: a smaller heap, fewer workers, no tmpfs"
            .to_owned(),
    ]
}

/// Advice for a CPU quota that is used up. No sysctl helps.
pub(super) fn for_quota(path: &str, cpus: Option<f64>) -> Vec<String> {
    let now = cpus.map_or_else(String::new, |cpus| format!(" from {cpus:.2} CPUs"));
    vec![
        "no sysctl helps: this is a CPU quota".to_owned(),
        format!(
            "raise it{now}, or remove it and rely on cpu.weight (in Kubernetes \
             resources.limits.cpu; systemd: CPUQuota=): echo max > /sys/fs/cgroup{path}/cpu.max; \
             undo: set the old line"
        ),
        "run fewer threads at once (GOMAXPROCS, worker counts): many threads use up a quota at \
         the start of each period and then all wait for its end"
            .to_owned(),
    ]
}

/// Advice for those who wait while others run.
pub(super) fn for_contention(kept_away: bool) -> Vec<String> {
    if kept_away {
        return vec![
            "no sysctl helps: the tasks that wait may not use the idle CPUs. Look at cpuset.cpus \
             of their cgroup, at the affinity of their threads (taskset -p PID) and at the CPU \
             manager's policy"
                .to_owned(),
        ];
    }
    vec![
        "no sysctl helps: more tasks are runnable than there are CPUs".to_owned(),
        "raise cpu.weight of the cgroups that wait (in Kubernetes resources.requests.cpu; \
         systemd: CPUWeight=); undo: set the old weight, 100 by default"
            .to_owned(),
        "limit the largest CPU user with a quota (cpu.max; in Kubernetes resources.limits.cpu), \
         or move it to another node; undo: set max"
            .to_owned(),
    ]
}

/// Advice for a cgroup that may not use its disk more. No sysctl helps.
pub(super) fn for_io_limit(path: &str, device: &str) -> Vec<String> {
    vec![
        "no sysctl helps: this is the cgroup's own limit on the disk".to_owned(),
        format!(
            "raise it, or remove it: echo \"{device} rbps=max wbps=max riops=max wiops=max\" > \
             /sys/fs/cgroup{path}/io.max (systemd: IOReadBandwidthMax= and the like); undo: set \
             the old line"
        ),
    ]
}

/// Advice for those who wait for a disk, safest first.
pub(super) fn for_io(node: &NodeReading, disk: Option<&DiskReading>) -> Vec<String> {
    let device = disk.map_or("MAJOR:MINOR", |disk| &disk.device);
    let mut advice = vec![format!(
        "limit the cgroup with the most I/O: echo \"{device} wbps=BYTES\" > io.max of that \
         cgroup, or a smaller io.weight; undo: echo \"{device} wbps=max\""
    )];
    if node.events.swap_in > 0 {
        advice.push(
            "the kernel reads pages back from swap: the node is short of memory, and the disk is \
             not the cause"
                .to_owned(),
        );
    }
    advice.push("use another disk, or a faster one".to_owned());
    advice
}
