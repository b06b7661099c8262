//! What a person can do against it, beside the treatments.

use super::measure::DiskReading;

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

/// Advice for tasks that may use few CPUs of many. No sysctl helps.
pub(super) fn for_cpu_set(path: &str) -> Vec<String> {
    vec![format!(
        "no sysctl helps: this is a CPU set. Give it more CPUs (cpuset.cpus in \
         /sys/fs/cgroup{path}; in Kubernetes the CPU manager's policy; systemd: AllowedCPUs=); \
         undo: set the old list"
    )]
}

/// Advice for tasks that wait while CPUs are idle.
pub(super) fn for_idle_cpus() -> Vec<String> {
    vec![
        "look at the affinity of the threads that wait (taskset -p PID), at quotas of cgroup \
         version 1 (cpu.cfs_quota_us, and nr_throttled in cpu.stat) and at real-time tasks"
            .to_owned(),
    ]
}

/// Advice for a virtual machine that gets too little of its host.
pub(super) fn for_steal() -> Vec<String> {
    vec![
        "no sysctl helps: the host runs something else. Move this machine, or ask its provider; a \
         burstable type may have used up its CPU credits"
            .to_owned(),
    ]
}

/// Advice for CPUs that interrupts take.
pub(super) fn for_interrupts(network: bool) -> Vec<String> {
    if network {
        return vec![
            "spread the packets over more CPUs: more queues of the network card (ethtool -L DEVICE \
             combined N), irqbalance, or RPS (rps_cpus in /sys/class/net/DEVICE/queues/rx-*); undo: \
             set the old values"
                .to_owned(),
        ];
    }
    vec![
        "find the source in /proc/interrupts and /proc/softirqs, and spread its interrupts over \
         more CPUs (/proc/irq/N/smp_affinity_list, irqbalance); undo: set the old values"
            .to_owned(),
    ]
}

/// Advice for those who wait while others run.
pub(super) fn for_contention() -> Vec<String> {
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

/// Advice for a disk that is busy, safest first.
pub(super) fn for_io(disk: &DiskReading, swaps: bool) -> Vec<String> {
    if swaps {
        return vec![
            "the disk swaps: the node, or a cgroup with memory.high or memory.max, is short of \
             memory; see the findings on memory"
                .to_owned(),
            "run less on this node, or add memory".to_owned(),
        ];
    }
    let device = &disk.device;
    vec![
        format!(
            "limit the cgroup with the most I/O: echo \"{device} wbps=BYTES\" > io.max of that \
             cgroup, or a smaller io.weight; undo: echo \"{device} wbps=max\""
        ),
        "use another disk, or a faster one".to_owned(),
    ]
}

/// Advice for tasks that wait for a server or a daemon. Nothing on this node helps.
pub(super) fn for_remote() -> Vec<String> {
    vec![
        "no sysctl helps: look at the server or the daemon of this file system, and at the network \
         to it (nfsstat -m, mountstats; /sys/kernel/debug/ceph; the log of the FUSE daemon)"
            .to_owned(),
    ]
}

/// Advice for waits that nothing explains.
pub(super) fn for_unknown_io() -> Vec<String> {
    vec![
        "while it lasts, look at where its tasks sleep: cat /proc/PID/stack for the tasks that `ps \
         -eo pid,stat,wchan:32,comm` shows in state D"
            .to_owned(),
    ]
}
