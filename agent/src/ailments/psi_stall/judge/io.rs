//! Waits for I/O: for a disk, for a limit, or for somebody else's answer.

use std::collections::BTreeSet;

use super::{IO_STALL, Judge, NAMED, bytes};
use crate::{
    ailments::psi_stall::{
        advice,
        measure::{CgroupReading, DiskReading},
    },
    kernel::{
        cgroup::Transfer,
        mounts::Mount,
        pressure::Resource,
        sleepers::{Place, Sleepers},
    },
    model::{Evidence, Finding, Party, Severity},
};

/// A limit that is used for more than this part is reached.
const AT_LIMIT: f64 = 0.8;

/// What waits to be written counts from here on.
const DIRTY: f64 = (4 << 20) as f64;

/// A cgroup is named for its I/O from this part of the disk's on.
const CULPRIT: f64 = 0.05;

/// Why tasks wait for I/O, as far as numbers explain it.
enum Cause<'r> {
    /// A cgroup is at its own limit.
    Limit(Limit<'r>),
    /// A disk was busy while they waited.
    Disk(&'r DiskReading),
    /// They sleep in file systems of servers or daemons.
    Remote(Place),
    /// Nothing that was measured explains it.
    Unknown,
}

/// Tasks wait for I/O for too long, and that slows them as far as is known.
pub(super) fn stall(judge: Judge<'_>) -> Option<Finding> {
    let victims = stalled(judge)?;
    if only_io_uring(judge) {
        return None;
    }
    let cause = cause(judge, &victims);
    let node = &judge.reading.node;
    let mut evidence = vec![judge.pressure(Resource::Io, &victims)];
    evidence.extend(judge.cause_evidence(Resource::Io));
    evidence.extend(node.disks.first().map(|disk| Evidence {
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
    let (which, culprits, remedies) = match &cause {
        Cause::Limit(limit) => (
            format!(
                "{} is at its io.max for {}",
                judge.who(limit.path),
                limit.device
            ),
            std::iter::once(limit.party(judge))
                .chain(of_disk(judge, limit.device))
                .collect(),
            advice::for_io_limit(limit.path, limit.device),
        ),
        Cause::Disk(disk) => (
            format!(
                "{} was busy for {:.0} % of the time{}",
                disk.name,
                100.0 * judge.share(disk.busy_seconds),
                if swaps(judge, disk) {
                    ", mostly with swap"
                } else {
                    ""
                }
            ),
            culprits(judge, disk),
            advice::for_io(disk, swaps(judge, disk)),
        ),
        Cause::Remote(place) => (
            format!(
                "{} in {}",
                sleep(tasks_in(judge, *place)),
                file_systems(judge, *place)
            ),
            remote_culprits(judge, *place),
            advice::for_remote(),
        ),
        Cause::Unknown => (
            format!("cannot tell why: {}", ruled_out(judge)),
            Vec::new(),
            advice::for_unknown_io(),
        ),
    };
    Some(Finding {
        kind: IO_STALL.to_owned(),
        severity: match cause {
            // The kernel counts waits that slow nobody, too.
            Cause::Unknown => Severity::Warning,
            Cause::Limit(_) | Cause::Disk(_) | Cause::Remote(_) => {
                judge.severity(Resource::Io, &victims)
            }
        },
        summary: format!("{} wait for I/O: {which}", judge.subject(&victims)),
        evidence,
        culprits: culprits.into_iter().take(NAMED).collect(),
        victims: judge.victims(Resource::Io, &victims),
        remedies,
        follows_load: true,
    })
}

/// A note where tasks wait for I/O, and slow nobody.
pub(super) fn note(judge: Judge<'_>) -> Option<String> {
    let victims = stalled(judge)?;
    if !only_io_uring(judge) {
        return None;
    }
    let waited = victims.first().map(|worst| worst.waits.io.some);
    let waited = waited.unwrap_or(judge.node(Resource::Io).some);
    Some(format!(
        "tasks waited for I/O for {:.0} % of the time, but in io_uring ({}), while the disks were \
         idle: the kernel counts an idle io_uring as a wait for I/O, which slows no task",
        100.0 * judge.share(waited),
        commands_in(judge, Place::IoUring)
    ))
}

/// The cgroups that waited for too long; empty where only the node is known to have.
fn stalled(judge: Judge<'_>) -> Option<Vec<&CgroupReading>> {
    let victims = judge.stalled(Resource::Io);
    (!victims.is_empty() || judge.node_stalls(Resource::Io)).then_some(victims)
}

/// Whether all tasks that can be what the kernel counts wait for an io_uring.
fn only_io_uring(judge: Judge<'_>) -> bool {
    let node = &judge.reading.node;
    let Some(sleeping) = &node.sleeping else {
        return false;
    };
    let sleepers = &sleeping.sleepers;
    sleeping.complete
        && node.disk_that_explains(node.window.io.some).is_none()
        && !sleepers.is_empty()
        && sleepers.iter().all(|it| it.place == Place::IoUring)
}

fn cause<'r>(judge: Judge<'r>, victims: &[&'r CgroupReading]) -> Cause<'r> {
    let node = &judge.reading.node;
    let worst = victims.first();
    if let Some(limit) = worst.and_then(|worst| limiting(judge, worst)) {
        return Cause::Limit(limit);
    }
    let waited = worst.map_or(node.window.io.some, |worst| worst.waits.io.some);
    if let Some(disk) = node.disk_that_explains(waited) {
        return Cause::Disk(disk);
    }
    let remote = sleepers(judge).filter(|it| REMOTE.contains(&it.place));
    match remote.max_by_key(|it| it.tasks) {
        Some(most) => Cause::Remote(most.place),
        None => Cause::Unknown,
    }
}

/// File systems that somebody else answers for.
const REMOTE: [Place; 5] = [Place::Nfs, Place::Smb, Place::Ceph, Place::Fuse, Place::P9];

fn sleepers<'r>(judge: Judge<'r>) -> impl Iterator<Item = &'r Sleepers> {
    let sleeping = judge.reading.node.sleeping.iter();
    sleeping.flat_map(|it| &it.sleepers)
}

fn tasks_in(judge: Judge<'_>, place: Place) -> u64 {
    let there = sleepers(judge).filter(|it| it.place == place);
    there.map(|it| it.tasks).sum()
}

/// The commands of the tasks that sleep there, those of most tasks first.
fn commands_in(judge: Judge<'_>, place: Place) -> String {
    commands(sleepers(judge).filter(|it| it.place == place))
}

fn commands<'r>(of: impl Iterator<Item = &'r Sleepers>) -> String {
    let commands = of.take(NAMED).map(|it| match it.tasks {
        1 => it.command.clone(),
        tasks => format!("{tasks} of {}", it.command),
    });
    commands.collect::<Vec<_>>().join(", ")
}

fn count_of_tasks(tasks: u64) -> String {
    match tasks {
        1 => "1 task".to_owned(),
        tasks => format!("{tasks} tasks"),
    }
}

/// What is mounted of the kind that tasks sleep in.
fn file_systems(judge: Judge<'_>, place: Place) -> String {
    let mounts = mounts_of(judge, place);
    match mounts.as_slice() {
        [] => format!("a file system of the kind {place:?}, which is mounted elsewhere"),
        [one] => mount(one),
        [first, rest @ ..] => format!("{} or {} more of its kind", mount(first), rest.len()),
    }
}

/// The mounts of the files that tasks read or write there; where no system call tells one, all of
/// the kind.
fn mounts_of(judge: Judge<'_>, place: Place) -> Vec<&Mount> {
    let there = sleepers(judge).filter(|it| it.place == place);
    let exact: BTreeSet<_> = there.filter_map(|it| it.mount.as_ref()).collect();
    if !exact.is_empty() {
        return exact.into_iter().collect();
    }
    let mounts = judge.reading.node.mounts.iter();
    mounts.filter(|it| place.is_of(&it.file_system)).collect()
}

fn mount(it: &Mount) -> String {
    format!(
        "{} ({} of {})",
        it.place.display(),
        it.file_system,
        it.source
    )
}

/// Each mount that tasks sleep in, with their number; where it is not known which, each that it may
/// be.
fn remote_culprits(judge: Judge<'_>, place: Place) -> Vec<Party> {
    let mounts = mounts_of(judge, place);
    let only_one = mounts.len() == 1;
    let party = |it: &Mount| {
        let there = sleepers(judge).filter(|sleepers| sleepers.mount.as_ref() == Some(it));
        let exact: Vec<_> = there.collect();
        let share = match exact.iter().map(|it| it.tasks).sum() {
            0 => format!(
                "{}{} in {}: {}",
                if only_one { "" } else { "perhaps: " },
                sleep(tasks_in(judge, place)),
                if only_one { "it" } else { "one of its kind" },
                commands_in(judge, place)
            ),
            tasks => format!("{} in it: {}", sleep(tasks), commands(exact.into_iter())),
        };
        Party {
            who: format!(
                "{} of {}, at {}",
                it.file_system,
                it.source,
                it.place.display()
            ),
            share,
        }
    };
    mounts.into_iter().map(party).collect()
}

fn sleep(tasks: u64) -> String {
    match tasks {
        1 => "1 task sleeps".to_owned(),
        tasks => format!("{tasks} tasks sleep"),
    }
}

/// What does not explain the waits, with its number.
fn ruled_out(judge: Judge<'_>) -> String {
    let node = &judge.reading.node;
    let disk = node.disks.first().map_or_else(
        || "no disk was busy".to_owned(),
        |disk| {
            format!(
                "the busiest disk, {}, was busy for {:.1} % of the time",
                disk.name,
                100.0 * judge.share(disk.busy_seconds)
            )
        },
    );
    let tasks = match &node.sleeping {
        Some(sleeping) if sleeping.sleepers.is_empty() && sleeping.complete => {
            "no task slept in I/O at the end of the window".to_owned()
        }
        Some(sleeping) => {
            let hidden = tasks_in(judge, Place::Hidden);
            let other = tasks_in(judge, Place::Other);
            let all = if sleeping.complete { "" } else { "at least " };
            match (other, hidden) {
                (0, 0) => "not all tasks could be looked at in time".to_owned(),
                (other, 0) => format!(
                    "{all}{} slept outside of network file systems ({})",
                    count_of_tasks(other),
                    commands_in(judge, Place::Other)
                ),
                (_, hidden) => format!(
                    "{all}{} slept where the kernel does not show it ({}; that takes root and \
                     CAP_SYS_ADMIN)",
                    count_of_tasks(hidden),
                    commands_in(judge, Place::Hidden)
                ),
            }
        }
        None => "sleeping tasks were not looked at".to_owned(),
    };
    format!("{disk}, no io.max was reached, and {tasks}")
}

/// Whether most of what a disk did was swapping.
fn swaps(judge: Judge<'_>, disk: &DiskReading) -> bool {
    /// Of a page, bytes: the smallest there is.
    const PAGE: u64 = 4_096;
    let events = &judge.reading.node.events;
    let swapped = (events.swap_in + events.swap_out) * PAGE;
    swapped * 2 > disk.read_bytes + disk.written_bytes && swapped > 0
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

/// Who reads and writes most on a device.
fn of_disk(judge: Judge<'_>, device: &str) -> Vec<Party> {
    let of = |it: &CgroupReading| it.io.get(device).copied().unwrap_or_default();
    let bytes_of = |it: &CgroupReading| {
        let moved = of(it);
        (moved.read_bytes + moved.written_bytes) as f64
    };
    let disks = judge.reading.node.disks.iter();
    let disk = disks
        .filter(|disk| disk.device == device)
        .map(|disk| disk.read_bytes + disk.written_bytes);
    let floor = CULPRIT * disk.max().unwrap_or_default() as f64;
    let party = |(it, _): (&CgroupReading, f64)| Party {
        who: judge.who(&it.path),
        share: format!(
            "read {}, wrote {}",
            bytes(of(it).read_bytes),
            bytes(of(it).written_bytes)
        ),
    };
    judge.most(bytes_of, floor).into_iter().map(party).collect()
}

/// Who reads and writes, then who has made most that waits to be written, which the
/// kernel's flusher writes in nobody's name where it does not know better.
fn culprits(judge: Judge<'_>, disk: &DiskReading) -> Vec<Party> {
    let mut parties = of_disk(judge, &disk.device);
    let dirty = |it: &CgroupReading| it.memory.map_or(0.0, |memory| memory.dirty as f64);
    for (it, waiting) in judge.most(dirty, DIRTY) {
        parties.push(Party {
            who: judge.who(&it.path),
            share: format!("{} wait to be written", bytes(waiting as u64)),
        });
    }
    if parties.is_empty() {
        parties.push(Party {
            who: format!("the users of {}", disk.name),
            share: format!(
                "read {}, wrote {}; no cgroup accounts for it",
                bytes(disk.read_bytes),
                bytes(disk.written_bytes)
            ),
        });
    }
    parties
}
