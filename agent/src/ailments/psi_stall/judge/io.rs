//! Waits for a disk.

use super::{Case, IO_STALL, NAMED, bytes, who};
use crate::{
    ailments::psi_stall::{
        measure::{CgroupReading, DiskReading},
        treat,
    },
    kernel::pressure::Resource,
    report::{Evidence, Finding, Party},
};

/// What waits to be written counts from here on.
const DIRTY: f64 = (4 << 20) as f64;

/// Tasks wait for a disk for too long.
pub(super) fn stall(case: Case<'_>) -> Option<Finding> {
    let victims = case.stalled(Resource::Io);
    if victims.is_empty() && !case.node_stalls(Resource::Io) {
        return None;
    }
    let node = &case.reading.node;
    let disk = node.disks.first();
    let mut evidence = vec![case.pressure(Resource::Io, &victims)];
    evidence.extend(disk.map(|disk| Evidence {
        metric: format!(
            "time at work of {} in /proc/diskstats, as a share",
            disk.name
        ),
        value: case.share(disk.busy_seconds),
        limit: None,
    }));
    let dirty = node.memory.dirty + node.memory.writeback;
    evidence.extend((dirty > 0).then(|| Evidence {
        metric: "nodemedic_psi_stall_dirty_bytes".to_owned(),
        value: dirty as f64,
        limit: None,
    }));
    let which = disk.map_or_else(
        || "a device that keeps no count".to_owned(),
        |disk| format!("{} did most in this time", disk.name),
    );
    Some(Finding {
        kind: IO_STALL.to_owned(),
        severity: case.severity(Resource::Io, &victims),
        summary: format!("{} wait for a disk: {which}", case.subject(&victims)),
        evidence,
        culprits: culprits(case, disk),
        victims: case.victims(Resource::Io, &victims),
        remedies: treat::for_io(node, disk),
    })
}

/// Who reads and writes, then who has made most that waits to be written, which the
/// kernel's flusher writes in nobody's name where it does not know better.
fn culprits(case: Case<'_>, disk: Option<&DiskReading>) -> Vec<Party> {
    let mut parties = Vec::new();
    for (it, _) in case.most(|it| it.io_bytes() as f64, 0.0) {
        let sum = |of: fn(&(String, u64, u64)) -> u64| it.io.iter().map(of).sum();
        let (read, written) = (sum(|it| it.1), sum(|it| it.2));
        parties.push(Party {
            who: who(&it.path),
            share: format!("read {}, wrote {}", bytes(read), bytes(written)),
        });
    }
    let dirty = |it: &CgroupReading| it.memory.map_or(0.0, |memory| memory.dirty as f64);
    for (it, waiting) in case.most(dirty, DIRTY) {
        parties.push(Party {
            who: who(&it.path),
            share: format!("{} wait to be written", bytes(waiting as u64)),
        });
    }
    parties.truncate(NAMED);
    if parties.is_empty() {
        parties.extend(disk.map(|disk| Party {
            who: format!("whoever uses {}", disk.name),
            share: format!(
                "read {}, wrote {}; no cgroup accounts for it",
                bytes(disk.read_bytes),
                bytes(disk.written_bytes)
            ),
        }));
    }
    parties
}
