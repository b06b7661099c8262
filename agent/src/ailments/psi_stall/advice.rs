//! What a person can do against it, beside the treatments.

use super::measure::{DiskReading, NodeReading};

/// Advice for a node that is short of memory, safest first.
pub(super) fn for_reclaim() -> Vec<String> {
    vec![
        "give the largest allocator a memory.high (in Kubernetes a memory limit) near what it \
         needs, so that it reclaims its own pages and not those of others; undo: write max"
            .to_owned(),
        "protect who waits with memory.low near what it needs (in Kubernetes memory requests with \
         MemoryQoS): others' pages go first; undo: write 0"
            .to_owned(),
        "have less run on this node, or give it more memory".to_owned(),
    ]
}

/// Advice for a cgroup at its limit. No sysctl helps.
pub(super) fn for_limit(path: &str, name: &str, value: u64) -> Vec<String> {
    let more = value.saturating_mul(3) / 2;
    vec![
        "no sysctl helps: this is the cgroup's own memory limit".to_owned(),
        format!(
            "raise it where the node has memory to spare: echo {more} > /sys/fs/cgroup{path}/{name} \
             (in Kubernetes resources.limits.memory; systemd: MemoryHigh=, MemoryMax=); undo: echo \
             {value} > /sys/fs/cgroup{path}/{name}"
        ),
        "have the largest allocator need less: a smaller heap, fewer workers, no tmpfs".to_owned(),
    ]
}

/// Advice for a CPU quota that is used up. No sysctl helps.
pub(super) fn for_quota(path: &str, cpus: Option<f64>) -> Vec<String> {
    let now = cpus.map_or_else(String::new, |cpus| format!(" from {cpus:.2} CPUs"));
    vec![
        "no sysctl helps: this is a CPU quota".to_owned(),
        format!(
            "raise it{now}, or take it away and rely on the share (in Kubernetes \
             resources.limits.cpu; systemd: CPUQuota=): echo max > /sys/fs/cgroup{path}/cpu.max; \
             undo: write the old line"
        ),
        "have it run fewer threads at once (GOMAXPROCS, worker counts): many threads use a quota \
         up at the begin of each period and then all wait for its end"
            .to_owned(),
    ]
}

/// Advice for those who wait while others run.
pub(super) fn for_contention(kept_away: bool) -> Vec<String> {
    if kept_away {
        return vec![
            "no sysctl helps: CPUs are idle that those who wait may not use. Look at \
             cpuset.cpus of their cgroup, at the affinity of their threads (taskset -p PID) and at \
             the CPU manager's policy"
                .to_owned(),
        ];
    }
    vec![
        "no sysctl helps: there is more to run than there are CPUs".to_owned(),
        "give those who wait a larger share: cpu.weight of their cgroup (in Kubernetes \
         resources.requests.cpu; systemd: CPUWeight=); undo: write the old weight, 100 by default"
            .to_owned(),
        "bound the largest runner with a quota (cpu.max; in Kubernetes resources.limits.cpu), or \
         have it run elsewhere; undo: write max"
            .to_owned(),
    ]
}

/// Advice for a cgroup that may not use its disk more. No sysctl helps.
pub(super) fn for_io_limit(path: &str, device: &str) -> Vec<String> {
    vec![
        "no sysctl helps: this is the cgroup's own limit on the disk".to_owned(),
        format!(
            "raise it, or take it away: echo \"{device} rbps=max wbps=max riops=max wiops=max\" > \
             /sys/fs/cgroup{path}/io.max (systemd: IOReadBandwidthMax= and the like); undo: write \
             the old line"
        ),
    ]
}

/// Advice for those who wait for a disk, safest first.
pub(super) fn for_io(node: &NodeReading, disk: Option<&DiskReading>) -> Vec<String> {
    let device = disk.map_or("MAJOR:MINOR", |disk| &disk.device);
    let mut advice = vec![format!(
        "bound whoever reads and writes most: echo \"{device} wbps=BYTES\" > io.max of its cgroup, \
         or a smaller io.weight; undo: echo \"{device} wbps=max\""
    )];
    if node.events.swap_in > 0 {
        advice.push(
            "pages are read back from swap: the disk is not to blame, the node is short of memory"
                .to_owned(),
        );
    }
    advice.push("put it on another disk, or a faster one".to_owned());
    advice
}
