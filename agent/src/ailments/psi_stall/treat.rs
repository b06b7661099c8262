//! What can be done against it: what each change does, what it costs, how it is undone.

use super::{
    judge::{IO_STALL, MEMORY_RECLAIM},
    measure::{DiskReading, NodeReading, Reading},
};

use crate::model::{Bound, Change, Proposal, Treatment};

/// Safest first.
pub(super) const TREATMENTS: &[&Treatment] = &[&DIRTY_BACKGROUND, &WATERMARKS];

/// Part of the memory, in percent, from which on the kernel writes by itself.
const LOWER_BACKGROUND: u64 = 3;

/// Five times the default: kswapd begins when half a percent of the memory is free.
const WIDER_WATERMARKS: u64 = 50;

static DIRTY_BACKGROUND: Treatment = Treatment {
    name: "dirty_background",
    effect: "the kernel begins to write dirty pages out sooner, in smaller waves",
    cost: "files that are soon overwritten or deleted are written all the same, which is more to \
           write in all",
    acts: "at once",
    applies: "where vm.dirty_background_ratio is in force and above 3, and more than half of what \
              it lets be is dirty",
    keys: &[Bound {
        key: "vm.dirty_background_ratio",
        allowed: LOWER_BACKGROUND..=LOWER_BACKGROUND,
    }],
    durable: "set vm.dirty_background_ratio in a file of /etc/sysctl.d",
};

static WATERMARKS: Treatment = Treatment {
    name: "watermark_scale",
    effect: "kswapd begins to reclaim earlier, so that fewer allocations have to do it themselves",
    cost: "up to half a percent of the memory stays free, and less is left for the page cache",
    acts: "at once",
    applies: "where vm.watermark_scale_factor is below 50, allocations had to reclaim although \
              kswapd was at work, and vm.min_free_kbytes does not make kswapd begin as early",
    keys: &[Bound {
        key: "vm.watermark_scale_factor",
        allowed: WIDER_WATERMARKS..=WIDER_WATERMARKS,
    }],
    durable: "set vm.watermark_scale_factor in a file of /etc/sysctl.d",
};

/// What each treatment would be now.
pub(super) fn proposals(reading: &Reading) -> Vec<Proposal> {
    let node = &reading.node;
    let lower = node
        .sysctl(DIRTY_BACKGROUND.keys[0].key)
        .filter(|from| *from > LOWER_BACKGROUND)
        .map(|from| change(&DIRTY_BACKGROUND, node, from));
    let wider = node
        .sysctl(WATERMARKS.keys[0].key)
        .filter(|from| *from < WIDER_WATERMARKS)
        .map(|from| change(&WATERMARKS, node, from));
    vec![
        Proposal {
            objection: no_wave(node),
            ..Proposal::new(&DIRTY_BACKGROUND, &[IO_STALL], lower)
        },
        Proposal {
            objection: not_short(node),
            ..Proposal::new(&WATERMARKS, &[MEMORY_RECLAIM], wider)
        },
    ]
}

fn change(treatment: &'static Treatment, node: &NodeReading, from: u64) -> Change {
    let Bound { key, allowed } = &treatment.keys[0];
    Change::new(key, node.netns, from, *allowed.start())
}

/// Why writing sooner would do no good: what waits to be written is not what holds the
/// disks up.
fn no_wave(node: &NodeReading) -> Option<String> {
    let dirty = node.memory.dirty + node.memory.writeback;
    let ratio = node.sysctl("vm.dirty_background_ratio").unwrap_or(0);
    let allowed = node.memory.available / 100 * ratio;
    (dirty.saturating_mul(2) < allowed).then(|| {
        format!(
            "{} MiB wait to be written, less than half of the {} MiB that \
             vm.dirty_background_ratio={ratio} lets be",
            dirty >> 20,
            allowed >> 20
        )
    })
}

/// Why an earlier kswapd would do no good: the counters do not say that the node was
/// short of memory.
fn not_short(node: &NodeReading) -> Option<String> {
    let events = &node.events;
    let wider = node.memory.total / 10_000 * WIDER_WATERMARKS;
    let least = node.sysctl("vm.min_free_kbytes");
    if let Some(least) = least.filter(|least| wakes_kswapd(*least) >= wider) {
        Some(format!(
            "vm.min_free_kbytes={least} makes kswapd begin as early"
        ))
    } else if events.allocstall == 0 {
        Some("no allocation had to reclaim by itself in the window".to_owned())
    } else if events.pgscan_kswapd == 0 {
        Some("kswapd was not at work in the window, so it was not late".to_owned())
    } else {
        None
    }
}

/// How far above the least that is kept free kswapd begins for this `vm.min_free_kbytes` alone, in
/// bytes; what `vm.watermark_scale_factor` asks for counts where it is more (mm/page_alloc.c,
/// `__setup_per_zone_wmarks`).
const fn wakes_kswapd(min_free_kbytes: u64) -> u64 {
    min_free_kbytes.saturating_mul(1024) / 4
}

/// Remedies for a node that is short of memory, safest first.
pub(super) fn for_reclaim(node: &NodeReading) -> Vec<String> {
    let mut remedies = Vec::new();
    let scale = node.sysctl(WATERMARKS.keys[0].key);
    if let (Some(from), None) = (scale.filter(|it| *it < WIDER_WATERMARKS), not_short(node)) {
        remedies.push(WATERMARKS.advice(from, WIDER_WATERMARKS));
    }
    remedies.push(
        "give the largest allocator a memory.high (in Kubernetes a memory limit) near what it \
         needs, so that it reclaims its own pages and not those of others; undo: write max"
            .to_owned(),
    );
    remedies.push(
        "protect who waits with memory.low near what it needs (in Kubernetes memory requests with \
         MemoryQoS): others' pages go first; undo: write 0"
            .to_owned(),
    );
    remedies.push("have less run on this node, or give it more memory".to_owned());
    remedies
}

/// Remedies for a cgroup at its limit. No sysctl helps.
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

/// Remedies for a CPU quota that is used up. No sysctl helps.
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

/// Remedies for those who wait while others run.
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

/// Remedies for a cgroup that may not use its disk more. No sysctl helps.
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

/// Remedies for those who wait for a disk, safest first.
pub(super) fn for_io(node: &NodeReading, disk: Option<&DiskReading>) -> Vec<String> {
    let mut remedies = Vec::new();
    let ratio = node.sysctl(DIRTY_BACKGROUND.keys[0].key);
    if let (Some(from), None) = (ratio.filter(|it| *it > LOWER_BACKGROUND), no_wave(node)) {
        remedies.push(DIRTY_BACKGROUND.advice(from, LOWER_BACKGROUND));
    }
    let device = disk.map_or("MAJOR:MINOR", |disk| &disk.device);
    remedies.push(format!(
        "bound whoever reads and writes most: echo \"{device} wbps=BYTES\" > io.max of its cgroup, \
         or a smaller io.weight; undo: echo \"{device} wbps=max\""
    ));
    if node.events.swap_in > 0 {
        remedies.push(
            "pages are read back from swap: the disk is not to blame, the node is short of memory"
                .to_owned(),
        );
    }
    remedies.push("put it on another disk, or a faster one".to_owned());
    remedies
}
