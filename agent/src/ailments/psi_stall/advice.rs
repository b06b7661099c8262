//! What a person can do against it, beside the treatments.

use super::measure::{CgroupReading, DiskReading};
use crate::text::shell_word;

/// Advice for a node that is short of memory, safest first. The largest allocator is named where
/// its own reclaim finds enough: else a limit is a livelock of its tasks.
pub(super) fn for_reclaim(allocator: Option<&str>) -> Vec<String> {
    let limit = allocator.map(|who| {
        format!(
            "set memory.high of the largest allocator, {who} (in Kubernetes a memory limit), near \
             what it needs, so that it reclaims its own pages and not those of others; undo: set \
             max"
        )
    });
    limit
        .into_iter()
        .chain([
            "set memory.low of the cgroups that wait near what they need (in Kubernetes memory \
             requests with MemoryQoS): the kernel reclaims other pages first; undo: set 0"
                .to_owned(),
            "run less on this node, or add memory".to_owned(),
        ])
        .collect()
}

/// Advice for waits for memory that nothing explains.
pub(super) fn for_unknown_memory(on_version_1: bool) -> Vec<String> {
    let version_1 = "look at the limits of the tree of version 1: memory.limit_in_bytes, \
                     memory.usage_in_bytes, memory.failcnt";
    let look = "while it lasts, look at where its tasks wait: cat /proc/PID/stack; with CAP_BPF \
                nodemedic counts that by itself";
    let version_1 = on_version_1.then(|| version_1.to_owned());
    version_1.into_iter().chain([look.to_owned()]).collect()
}

/// A file of a cgroup as a command takes it. A name with a backslash, as many of systemd's have, is
/// quoted.
fn word(path: &str, file: &str) -> String {
    shell_word(&format!("/sys/fs/cgroup{path}/{file}"))
}

/// Advice for a cgroup at its limit, which uses so much. No sysctl helps.
pub(super) fn for_limit(path: &str, name: &str, value: u64, current: u64) -> Vec<String> {
    let more = value.max(current).saturating_mul(3) / 2;
    let file = word(path, name);
    vec![
        "no sysctl helps: this is the cgroup's own memory limit".to_owned(),
        format!(
            "raise {name} if the node has free memory: echo {more} > {file} (in Kubernetes \
             resources.limits.memory; systemd: MemoryHigh=, MemoryMax=); undo: echo {value} > {file}"
        ),
        "reduce what the largest allocator needs: a smaller heap, fewer workers, no tmpfs"
            .to_owned(),
    ]
}

/// The file that has a cgroup's CPU quota.
pub(super) const fn quota_file(cgroup: &CgroupReading) -> &'static str {
    if cgroup.quota_on_version_1 {
        "cpu.cfs_quota_us"
    } else {
        "cpu.max"
    }
}

/// Advice for a CPU quota that is used up. No sysctl helps.
pub(super) fn for_quota(cgroup: &CgroupReading) -> Vec<String> {
    let (path, cpus) = (&cgroup.path, cgroup.quota_cpus);
    let now = cpus.map_or_else(String::new, |cpus| format!(" from {cpus:.2} CPUs"));
    let remove = if cgroup.quota_on_version_1 {
        format!(
            "rely on cpu.shares (in Kubernetes resources.limits.cpu; systemd: CPUQuota=): echo -1 > \
             cpu.cfs_quota_us in {} of the tree of version 1; undo: set the old number",
            shell_word(path)
        )
    } else {
        format!(
            "rely on cpu.weight (in Kubernetes resources.limits.cpu; systemd: CPUQuota=): echo max > \
             {}; undo: set the old line",
            word(path, "cpu.max")
        )
    };
    vec![
        "no sysctl helps: this is a CPU quota".to_owned(),
        format!("raise it{now}, or remove it and {remove}"),
        "run fewer threads at once (GOMAXPROCS, worker counts): many threads use up a quota at \
         the start of each period and then all wait for its end"
            .to_owned(),
    ]
}

/// Advice for tasks that may use few CPUs of many. No sysctl helps.
pub(super) fn for_cpu_set(path: &str) -> Vec<String> {
    vec![format!(
        "no sysctl helps: this is a CPU set. Give it more CPUs ({}; in Kubernetes the CPU manager's policy; systemd: AllowedCPUs=); \
         undo: set the old list",
        word(path, "cpuset.cpus")
    )]
}

/// Advice for tasks on CPUs that the kernel does not balance them over. No sysctl helps.
pub(super) fn for_isolated_cpus(path: &str) -> Vec<String> {
    vec![
        format!(
            "no sysctl helps: give it CPUs that are not isolated ({}; systemd: AllowedCPUs=), see /sys/devices/system/cpu/isolated; \
             undo: set the old list",
            word(path, "cpuset.cpus")
        ),
        "or give each thread a CPU of its own (taskset -pc CPU TID), or boot without isolcpus="
            .to_owned(),
    ]
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

/// Advice where packets take all CPUs: there are none to spread them over.
pub(super) fn for_packets() -> Vec<String> {
    vec![
        "find who sends the packets (sar -n DEV 1; tcpdump -nni DEVICE -c 1000) and stop that \
         there; where nobody wants them, drop them early (tc, XDP, or a rule in the raw table)"
            .to_owned(),
        "a UDP flow to a pod that is gone goes on with its conntrack entry: see udp_conntrack"
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
             {} (systemd: IOReadBandwidthMax= and the like); undo: set the old line",
            word(path, "io.max")
        ),
    ]
}

/// Advice for a disk that is busy, safest first.
pub(super) fn for_io(device: &str, swaps: bool) -> Vec<String> {
    if swaps {
        return vec![
            "the disk swaps: the node, or a cgroup with memory.high or memory.max, is short of \
             memory; see the findings on memory"
                .to_owned(),
            "run less on this node, or add memory".to_owned(),
        ];
    }
    vec![
        format!(
            "limit the cgroup with the most I/O: echo \"{device} wbps=BYTES\" > io.max of that \
             cgroup, or a smaller io.weight; undo: echo \"{device} wbps=max\""
        ),
        "use another disk, or a faster one".to_owned(),
    ]
}

/// Advice for a disk that answers nothing: a limit would not help.
pub(super) fn for_stuck_disk(disk: &DiskReading) -> Vec<String> {
    vec![
        format!(
            "no sysctl and no limit helps: find out why {} does not answer (dmesg; for a disk over \
             the network its server and the network to it: ceph -s, drbdadm status, multipath -ll, \
             iscsiadm -m session)",
            disk.name
        ),
        "move the tasks that wait for it to another node, once the disk can be used there"
            .to_owned(),
    ]
}

/// Advice for tasks that wait for a server or a daemon. Nothing on this node helps.
pub(super) fn for_remote() -> Vec<String> {
    vec![
        "no sysctl helps: look at the server or the daemon of this file system, and at the network \
         to it (nfsstat -m, mountstats; /sys/kernel/debug/ceph; lfs check servers; mmdiag --waiters; dlm_tool \
         ls; the log of the FUSE daemon)"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_whatever_the_cgroup_is_called() {
        let advice = for_limit(r"/cri\x2dd.slice/$(reboot)", "memory.max", 10, 20).join(" ");
        let file = r"'/sys/fs/cgroup/cri\x2dd.slice/$(reboot)/memory.max'";
        assert!(advice.contains(&format!("echo 30 > {file} (")), "{advice}");
        let undo = format!("undo: echo 10 > {file}");
        assert!(advice.contains(&undo), "{advice}");
    }
}
