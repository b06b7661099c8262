//! Waits for a disk.

use super::{IO_STALL, Judge, NAMED, bytes};
use crate::{
    ailments::psi_stall::{
        advice,
        measure::{CgroupReading, DiskReading},
    },
    kernel::{cgroup::Transfer, pressure::Resource},
    model::{Evidence, Finding, Party},
};

/// A limit that is used for more than this part is reached.
const AT_LIMIT: f64 = 0.8;

/// What waits to be written counts from here on.
const DIRTY: f64 = (4 << 20) as f64;

/// Tasks wait for a disk for too long.
pub(super) fn stall(judge: Judge<'_>) -> Option<Finding> {
    let victims = judge.stalled(Resource::Io);
    if victims.is_empty() && !judge.node_stalls(Resource::Io) {
        return None;
    }
    let node = &judge.reading.node;
    let disk = node.disks.first();
    let limit = victims.first().and_then(|worst| limiting(judge, worst));
    let mut evidence = vec![judge.pressure(Resource::Io, &victims)];
    evidence.extend(judge.cause_evidence(Resource::Io));
    evidence.extend(disk.map(|disk| Evidence {
        metric: format!("busy time of {} in /proc/diskstats, as a share", disk.name),
        value: judge.share(disk.busy_seconds),
        limit: None,
    }));
    let dirty = node.memory.dirty + node.memory.writeback;
    evidence.extend((dirty > 0).then(|| Evidence {
        metric: "nodemedic_psi_stall_dirty_bytes".to_owned(),
        value: dirty as f64,
        limit: None,
    }));
    let which = match (&limit, disk) {
        (Some(limit), _) => format!(
            "{} is at its io.max for {}",
            judge.who(limit.path),
            limit.device
        ),
        (None, Some(disk)) => format!("most I/O went to {}", disk.name),
        (None, None) => "a device without counters".to_owned(),
    };
    let limited = limit.as_ref().map(|limit| limit.party(judge));
    let remedies = match &limit {
        Some(limit) => advice::for_io_limit(limit.path, limit.device),
        None => advice::for_io(node, disk),
    };
    Some(Finding {
        kind: IO_STALL.to_owned(),
        severity: judge.severity(Resource::Io, &victims),
        summary: format!("{} wait for a disk: {which}", judge.subject(&victims)),
        evidence,
        culprits: limited
            .into_iter()
            .chain(culprits(judge, disk))
            .take(NAMED)
            .collect(),
        victims: judge.victims(Resource::Io, &victims),
        remedies,
        follows_load: true,
    })
}

/// A cgroup's own limit on a disk, and what it made of it.
struct Limit<'r> {
    path: &'r str,
    device: &'r str,
    moved: Transfer<u64>,
    allowed: Transfer<Option<u64>>,
}

impl Limit<'_> {
    /// Whether any of its numbers is used up, as far as a window shows that.
    fn is_reached(&self, seconds: f64) -> bool {
        let (moved, allowed) = (&self.moved, &self.allowed);
        let pairs = [
            (moved.read_bytes, allowed.read_bytes),
            (moved.written_bytes, allowed.written_bytes),
            (moved.reads, allowed.reads),
            (moved.writes, allowed.writes),
        ];
        pairs.into_iter().any(|(moved, allowed)| {
            let used = |allowed: u64| moved as f64 >= AT_LIMIT * allowed as f64 * seconds;
            allowed.is_some_and(used)
        })
    }

    fn party(&self, judge: Judge<'_>) -> Party {
        let allowed = &self.allowed;
        let parts = [
            ("reading", allowed.read_bytes.map(bytes)),
            ("writing", allowed.written_bytes.map(bytes)),
            ("reading", allowed.reads.map(|it| format!("{it} requests"))),
            ("writing", allowed.writes.map(|it| format!("{it} requests"))),
        ];
        let parts = parts
            .into_iter()
            .filter_map(|(what, most)| Some(format!("{what} at most {} a second", most?)));
        Party {
            who: format!("io.max of {}", judge.who(self.path)),
            share: parts.collect::<Vec<_>>().join(", "),
        }
    }
}

/// The limit that makes a cgroup wait: the nearest upwards that is reached.
fn limiting<'r>(judge: Judge<'r>, victim: &'r CgroupReading) -> Option<Limit<'r>> {
    let upwards = judge.upwards(&victim.path);
    let mut limits = upwards.flat_map(|it| {
        it.io_max.iter().map(|(device, allowed)| Limit {
            path: &it.path,
            device,
            moved: it.io.get(device).copied().unwrap_or_default(),
            allowed: *allowed,
        })
    });
    limits.find(|limit| limit.is_reached(judge.reading.window_seconds))
}

/// Who reads and writes, then who has made most that waits to be written, which the
/// kernel's flusher writes in nobody's name where it does not know better.
fn culprits(judge: Judge<'_>, disk: Option<&DiskReading>) -> Vec<Party> {
    let mut parties = Vec::new();
    for (it, _) in judge.most(|it| it.io_bytes() as f64, 0.0) {
        let read = it.io.values().map(|it| it.read_bytes).sum();
        let written = it.io.values().map(|it| it.written_bytes).sum();
        parties.push(Party {
            who: judge.who(&it.path),
            share: format!("read {}, wrote {}", bytes(read), bytes(written)),
        });
    }
    let dirty = |it: &CgroupReading| it.memory.map_or(0.0, |memory| memory.dirty as f64);
    for (it, waiting) in judge.most(dirty, DIRTY) {
        parties.push(Party {
            who: judge.who(&it.path),
            share: format!("{} wait to be written", bytes(waiting as u64)),
        });
    }
    parties.truncate(NAMED);
    if parties.is_empty() {
        parties.extend(disk.map(|disk| Party {
            who: format!("the users of {}", disk.name),
            share: format!(
                "read {}, wrote {}; no cgroup accounts for it",
                bytes(disk.read_bytes),
                bytes(disk.written_bytes)
            ),
        }));
    }
    parties
}
