//! Waits for memory: because the node is short of it, or because a cgroup may have no more.

use super::{Judge, MEMORY_LIMIT, MEMORY_RECLAIM, NAMED, bytes, counter};
use crate::{
    ailments::psi_stall::{
        advice,
        causes::Cause,
        measure::{CgroupReading, MemoryReading},
    },
    kernel::{machine::MemoryEvents, pressure::Resource},
    model::{Evidence, Finding, Party, Severity},
};

/// A cgroup that uses more than this part of its limit is at it.
const AT_LIMIT: f64 = 0.95;

/// Tasks wait although no limit of a cgroup makes them: the node is short of memory, or
/// reads back what it had let go.
pub(super) fn reclaim(judge: Judge<'_>) -> Option<Finding> {
    let all = judge.stalled(Resource::Memory);
    let victims: Vec<_> = all
        .iter()
        .copied()
        .filter(|it| limiting(judge, it).is_none())
        .collect();
    // Without a cgroup of their own nobody knows of a limit.
    let nobody_known = all.is_empty() && node_stalls_beside_kswapd(judge);
    if victims.is_empty() && !nobody_known {
        return None;
    }
    let events = &judge.reading.node.events;
    let mut evidence = vec![judge.pressure(Resource::Memory, &victims)];
    for (name, value) in events.named() {
        let metric = format!("nodemedic_psi_stall_memory_events_total{{event=\"{name}\"}}");
        evidence.extend(counter(&format!("{metric} in the window"), value));
    }
    evidence.extend(judge.cause_evidence(Resource::Memory));
    let main = victims.first();
    let measured = main.and_then(|it| judge.main_cause(Resource::Memory, &it.path));
    let measured = measured.filter(|cause| *cause != Cause::Unknown);
    let path = if let Some(cause) = measured {
        cause.explanation()
    } else if events.allocstall > 0 {
        "they reclaim it themselves, because the node is short of it"
    } else if events.swap_in > 0 {
        "they read it back from swap"
    } else if events.compact_stall > 0 {
        "they compact it"
    } else if events.refault > 0 {
        "they read file pages back that were reclaimed too early"
    } else {
        UNEXPLAINED
    };
    // No counter explains these waits, so large memory makes no cgroup their cause.
    let unknown = path == UNEXPLAINED || path == Cause::Other.explanation();
    let on_version_1 = judge.reading.memory_on_version_1;
    let largest = allocator(judge).filter(|it| has_enough(judge, it));
    let largest = largest.map(|it| judge.who(&it.path));
    Some(Finding {
        kind: MEMORY_RECLAIM.to_owned(),
        severity: if unknown {
            Severity::Warning
        } else {
            judge.severity(Resource::Memory, &victims)
        },
        summary: format!(
            "{} wait for memory: {}{}",
            judge.subject(&victims),
            if unknown { UNEXPLAINED } else { path },
            if unknown && on_version_1 {
                ". The memory controller is mounted in version 1, and nodemedic does not read its \
                 limits"
            } else {
                ""
            }
        ),
        evidence,
        culprits: if unknown {
            Vec::new()
        } else {
            allocators(judge, |_| true)
        },
        victims: judge.victims(Resource::Memory, &victims),
        remedies: if unknown {
            advice::for_unknown_memory(on_version_1)
        } else {
            advice::for_reclaim(largest.as_deref())
        },
        follows_load: false,
    })
}

const UNEXPLAINED: &str = "cannot tell why, no counter of reclaim, swap or compaction explains it";

/// The cgroup that takes most memory.
fn allocator(judge: Judge<'_>) -> Option<&CgroupReading> {
    let most = judge.most(|it| it.allocated() as f64, 0.0).into_iter();
    most.map(|(it, _)| it).next()
}

/// Whether a cgroup can give up twice what the node had to reclaim in the window, and a hundredth
/// of its memory at least, without its tasks waiting for that: file pages not used lately, or what
/// there is of swap. Above `memory.high` with neither, its tasks reclaim for hours and find nothing.
fn has_enough(judge: Judge<'_>, it: &CgroupReading) -> bool {
    /// Of a page, bytes: the smallest there is.
    const PAGE: u64 = 4_096;
    let node = &judge.reading.node;
    let reclaimed = node
        .events
        .pgsteal_direct
        .saturating_add(node.events.pgsteal_kswapd);
    let wanted = reclaimed.saturating_mul(PAGE).max(node.memory.total / 100);
    let files = it.memory.and_then(|memory| memory.inactive_file);
    let swap = node.memory.swap_free;
    files.is_some_and(|files| files.saturating_add(swap) >= wanted.saturating_mul(2))
}

/// Whether memory is short by the counters alone, and how much of the node's wait is kswapd's is
/// an estimate: where the probes do not tell, waits of others may hide in it.
pub(super) fn hidden_by_kswapd(judge: Judge<'_>) -> bool {
    let events = &judge.reading.node.events;
    let somebody = events.pgscan_direct > 0 || events.allocstall > 0;
    somebody
        && judge.node_stalls(Resource::Memory)
        && beside_kswapd(judge).is_none()
        && !node_stalls_beside_kswapd(judge)
        && judge.stalled(Resource::Memory).is_empty()
}

/// Whether tasks of the node waited for too long, kswapd's part left out: its work is counted as
/// a wait of the node (mm/vmscan.c, `balance_pgdat`), and is there to spare others theirs.
fn node_stalls_beside_kswapd(judge: Judge<'_>) -> bool {
    let all = judge.node(Resource::Memory).some;
    let waited = match beside_kswapd(judge) {
        Some(measured) => measured.min(all),
        None => all * part_of_allocations(&judge.reading.node.events),
    };
    judge.share(waited) > judge.limit(Resource::Memory)
}

/// The probes explain the pressure if they saw at least this part of it.
const EXPLAINS: f64 = 0.5;

/// What others than the kernel's own threads waited for memory, by the probes, in seconds; `None`
/// where these do not know the path of each wait, or saw too little of what the kernel counts.
fn beside_kswapd(judge: Judge<'_>) -> Option<f64> {
    let probed = judge.reading.probed.as_ref()?;
    let all = probed.causes.iter();
    let all = all.filter(|it| it.resource == Resource::Memory && it.window > 0.0);
    let seen: f64 = all.map(|it| it.window).sum();
    if !probed.memory_causes || seen < EXPLAINS * judge.node(Resource::Memory).some {
        return None;
    }
    let causes = judge.causes(Resource::Memory);
    let known = causes.iter().all(|it| it.cause != Cause::Unknown);
    known.then(|| causes.iter().map(|it| it.window).sum())
}

/// The part of the waits for memory that is not kswapd's, by the counters: that of the pages that
/// it did not look at, where nobody waited for anything but reclaim.
fn part_of_allocations(events: &MemoryEvents) -> f64 {
    let others = events.refault.max(events.swap_in).max(events.compact_stall);
    let scanned = events.pgscan_direct.saturating_add(events.pgscan_kswapd);
    if others == 0 && scanned > 0 {
        events.pgscan_direct as f64 / scanned as f64
    } else {
        1.0
    }
}

/// Tasks wait because their cgroup, or one above, is at its limit.
pub(super) fn limit(judge: Judge<'_>) -> Option<Finding> {
    let stalled = judge.stalled(Resource::Memory).into_iter();
    let limited: Vec<_> = stalled
        .filter_map(|it| Some((it, limiting(judge, it)?)))
        .collect();
    let (_, (holder, memory)) = *limited.first()?;
    let victims: Vec<_> = limited.iter().map(|(victim, _)| *victim).collect();
    let (name, value) = limit_of(&memory).unwrap_or(("memory.max", memory.current));
    let mut evidence = vec![
        judge.pressure(Resource::Memory, &victims),
        Evidence {
            metric: format!("memory.current of {}", judge.who(&holder.path)),
            value: memory.current as f64,
            limit: Some(value as f64),
        },
    ];
    if let Some(window) = memory.window {
        let events = [
            ("high", window.high_events),
            ("max", window.max_events),
            ("oom", window.oom_events),
        ];
        evidence.extend(events.into_iter().filter_map(|(event, count)| {
            let metric = format!("memory.events.local {event} of {}", judge.who(&holder.path));
            counter(&format!("{metric} in the window"), count)
        }));
    }
    evidence.extend(judge.cause_evidence(Resource::Memory));
    let below = |it: &CgroupReading| it.path == holder.path || super::is_below(it, holder);
    let mut culprits = vec![Party {
        who: format!("{name} of {}", judge.who(&holder.path)),
        share: format!("{}, {} used", bytes(value), bytes(memory.current)),
    }];
    culprits.extend(allocators(judge, below));
    Some(Finding {
        kind: MEMORY_LIMIT.to_owned(),
        severity: judge.severity(Resource::Memory, &victims),
        summary: format!(
            "{} wait for memory: {} is at its {name} of {}{}",
            judge.subject(&victims),
            judge.who(&holder.path),
            bytes(value),
            livelock(&memory).unwrap_or_default()
        ),
        evidence,
        culprits,
        victims: judge.victims(Resource::Memory, &victims),
        remedies: advice::for_limit(&holder.path, name, value, memory.current),
        follows_load: false,
    })
}

/// A cgroup above its `memory.high` in which reclaim finds nothing, in words that follow the limit:
/// each allocation tries again, and its tasks hardly run until `memory.high` is raised.
fn livelock(memory: &MemoryReading) -> Option<String> {
    /// Of the pages looked at, the part that is found where reclaim gets on.
    const FOUND: f64 = 0.1;
    let (window, high) = (memory.window?, memory.high?);
    let over = memory.current >= high && window.high_events > 0 && window.scanned > 0;
    let found = window.reclaimed as f64;
    (over && found <= FOUND * window.scanned as f64).then(|| {
        format!(
            ", and {} are above it: reclaim found {} of the {} pages that it looked at, which goes \
             on until memory.high is raised",
            bytes(memory.current.saturating_sub(high)),
            window.reclaimed,
            window.scanned
        )
    })
}

/// The cgroup whose limit makes another wait: the nearest upwards whose limit has made
/// tasks reclaim in the window; where that is not known, or the stack of who waits tells of
/// a limit, the nearest that is at it. (A task that is over its limit is made to pause, for
/// up to two seconds without an event.)
fn limiting<'r>(
    judge: Judge<'r>,
    victim: &'r CgroupReading,
) -> Option<(&'r CgroupReading, MemoryReading)> {
    let with_memory = |it: &'r CgroupReading| Some((it, it.memory?));
    let upwards = || judge.upwards(&victim.path).filter_map(with_memory);
    let by_events = upwards().find(|(it, _)| it.limit_events() > 0);
    let measured = judge.main_cause(Resource::Memory, &victim.path);
    let by_stack = measured == Some(Cause::CgroupReclaim);
    by_events.or_else(|| {
        upwards().find(|(_, memory)| {
            let used = memory.current as f64;
            let limit = limit_of(memory).map(|(_, limit)| limit as f64);
            (by_stack || memory.window.is_none())
                && limit.is_some_and(|limit| used > AT_LIMIT * limit)
        })
    })
}

/// The limit that is met first.
fn limit_of(memory: &MemoryReading) -> Option<(&'static str, u64)> {
    let limits = [("memory.high", memory.high), ("memory.max", memory.max)];
    let limits = limits
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit?)));
    limits.min_by_key(|(_, limit)| *limit)
}

/// Who takes memory: by the faults of the window, else by what they have.
fn allocators(judge: Judge<'_>, among: impl Fn(&CgroupReading) -> bool) -> Vec<Party> {
    let taken = |it: &CgroupReading| {
        if among(it) {
            it.allocated() as f64
        } else {
            0.0
        }
    };
    let most = judge.most(taken, 0.0);
    if !most.is_empty() {
        let all: f64 = most.iter().map(|(_, pages)| pages).sum();
        let party = |(it, pages): (&CgroupReading, f64)| Party {
            who: judge.who(&it.path),
            share: format!(
                "{pages:.0} pages faulted in, {:.0} % of those named; has {}",
                100.0 * pages / all,
                bytes(it.memory.map_or(0, |memory| memory.current))
            ),
        };
        return most.into_iter().map(party).collect();
    }
    let has = |it: &CgroupReading| match it.memory {
        Some(memory) if among(it) => memory.current as f64,
        Some(_) | None => 0.0,
    };
    let most = judge.most(has, 0.0).into_iter().take(NAMED);
    let party = |(it, used): (&CgroupReading, f64)| Party {
        who: judge.who(&it.path),
        share: format!("has {}", bytes(used as u64)),
    };
    most.map(party).collect()
}
