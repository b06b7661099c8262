//! Waits for I/O: for a disk, for a limit, or for somebody else's answer.

use std::collections::{BTreeMap, BTreeSet};

use super::{IO_STALL, Judge, NAMED, bytes, is_at_or_below};
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
    /// A disk has requests, and ends none.
    Stuck(&'r DiskReading),
    /// They moved so many bytes on a disk without statistics: name, number.
    Uncounted(&'r str, &'r str, u64),
    /// They sleep in file systems of servers or daemons.
    Remote(Remote<'r>),
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
    evidence.extend(node.disks.iter().flatten().map(|disk| Evidence {
        metric: format!("busy time of {} in /proc/diskstats, as a share", disk.name),
        value: judge.share(disk.busy_seconds),
        limit: None,
    }));
    let dirty = node.memory.dirty.saturating_add(node.memory.writeback);
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
                "{}{} was busy for {:.0} % of the time{}{}",
                disk.name,
                lies_on(disk),
                100.0 * judge.share(disk.busy_seconds),
                also_busy(judge, &victims, disk),
                if swaps(judge, disk) {
                    ", mostly with swap"
                } else {
                    ""
                }
            ),
            culprits(judge, disk),
            advice::for_io(&disk.device, swaps(judge, disk)),
        ),
        Cause::Stuck(disk) => (
            format!(
                "{}{} has {} in flight, and none ended within {:.0} s",
                disk.name,
                lies_on(disk),
                requests(disk.in_flight),
                judge.reading.window_seconds
            ),
            vec![Party {
                who: disk.name.clone(),
                share: format!(
                    "{} in flight, 0 completed in the window",
                    requests(disk.in_flight)
                ),
            }],
            advice::for_stuck_disk(disk),
        ),
        Cause::Uncounted(name, device, moved) => (
            format!(
                "they moved {} on {name}, for which the kernel counts no busy time (queue/iostats \
                 at 0, or a driver without statistics)",
                bytes(*moved)
            ),
            of_disk(judge, device),
            advice::for_io(device, false),
        ),
        Cause::Remote(remote) => (
            format!(
                "{} in {}",
                sleep(remote.tasks()),
                file_systems(&remote.mounts(judge), remote.place)
            ),
            remote.culprits(judge),
            advice::for_remote(),
        ),
        Cause::Unknown => (
            format!("cannot tell why: {}", ruled_out(judge, &victims)),
            Vec::new(),
            advice::for_unknown_io(),
        ),
    };
    Some(Finding {
        kind: IO_STALL.to_owned(),
        severity: match cause {
            // The kernel counts waits that slow nobody, too.
            Cause::Unknown => Severity::Warning,
            Cause::Limit(_)
            | Cause::Disk(_)
            | Cause::Stuck(_)
            | Cause::Uncounted(..)
            | Cause::Remote(_) => judge.severity(Resource::Io, &victims),
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
        commands(sleepers(judge).filter(|it| it.place == Place::IoUring))
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
        && node.disks.is_some()
        && node.uncounted.is_empty()
        && node.stuck_disk().is_none()
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
    if let Some(disk) = node.stuck_disk() {
        return Cause::Stuck(disk);
    }
    if let Some((name, device, moved)) = uncounted(judge, worst.copied()) {
        return Cause::Uncounted(name, device, moved);
    }
    Remote::find(judge, worst.copied()).map_or(Cause::Unknown, Cause::Remote)
}

/// The disk without statistics that who waits longest moved most bytes on.
fn uncounted<'r>(
    judge: Judge<'r>,
    worst: Option<&CgroupReading>,
) -> Option<(&'r str, &'r str, u64)> {
    let disks = judge.reading.node.uncounted.iter();
    let moved = |device: &str| {
        let moved = worst?.io.get(device)?;
        Some(moved.read_bytes.saturating_add(moved.written_bytes))
    };
    let disks = disks.filter_map(|(name, device)| {
        let moved = moved(device).filter(|moved| *moved > 0)?;
        Some((name.as_str(), device.as_str(), moved))
    });
    disks.max_by_key(|(_, _, moved)| *moved)
}

/// The disks below one, in parentheses.
fn lies_on(disk: &DiskReading) -> String {
    match disk.below.as_slice() {
        [] => String::new(),
        below => format!(" (on {})", below.join(", ")),
    }
}

/// The other disks that were busy for as long: those below a logical volume, for one.
fn also_busy(judge: Judge<'_>, victims: &[&CgroupReading], disk: &DiskReading) -> String {
    let waited = victims.first().map(|worst| worst.waits.io.some);
    let waited = waited.unwrap_or(judge.node(Resource::Io).some);
    let others = judge.reading.node.disks_that_explain(waited);
    let others = others.filter(|it| it.name != disk.name && !it.stuck);
    let other = |it: &DiskReading| {
        let busy = 100.0 * judge.share(it.busy_seconds);
        format!("{}{} for {busy:.0} %", it.name, lies_on(it))
    };
    let others: Vec<_> = others.map(other).collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(", {}", others.join(", "))
    }
}

fn requests(count: u64) -> String {
    match count {
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    }
}

/// Tasks that sleep in one kind of file systems that somebody else answers for.
struct Remote<'r> {
    place: Place,
    sleepers: Vec<&'r Sleepers>,
}

impl<'r> Remote<'r> {
    /// Where most tasks of who waits longest sleep so.
    fn find(judge: Judge<'r>, worst: Option<&CgroupReading>) -> Option<Self> {
        let mut places: BTreeMap<Place, Vec<&'r Sleepers>> = BTreeMap::new();
        for it in sleepers(judge) {
            if it.place.is_remote() && worst.is_none_or(|worst| may_be_of(it, worst)) {
                places.entry(it.place).or_default().push(it);
            }
        }
        let all = places.into_iter();
        let all = all.map(|(place, sleepers)| Self { place, sleepers });
        all.max_by_key(Self::tasks)
    }

    fn tasks(&self) -> u64 {
        let tasks = self.sleepers.iter().map(|it| it.tasks);
        tasks.fold(0, u64::saturating_add)
    }

    /// The file systems that they read or write. Where no system call names a file, all file
    /// systems of the kind.
    fn mounts(&self, judge: Judge<'r>) -> Vec<FileSystem<'r>> {
        let exact = self.sleepers.iter().filter_map(|it| it.mount.as_ref());
        let exact = FileSystem::group(exact);
        if !exact.is_empty() {
            return exact;
        }
        let mounts = judge.reading.node.mounts.iter();
        FileSystem::group(mounts.filter(|it| self.place.is_of(&it.file_system)))
    }

    /// Each file system that tasks sleep in, with their number; where it is not known which, each
    /// that it may be.
    fn culprits(&self, judge: Judge<'r>) -> Vec<Party> {
        let mounts = self.mounts(judge);
        let only_one = mounts.len() == 1;
        let party = |it: &FileSystem<'_>| {
            let there = self.sleepers.iter().copied();
            let there: Vec<_> = there.filter(|sleepers| it.has(sleepers)).collect();
            let tasks = there.iter().map(|it| it.tasks);
            let share = match tasks.fold(0, u64::saturating_add) {
                0 => format!(
                    "{}{} in {}: {}",
                    if only_one { "" } else { "perhaps: " },
                    sleep(self.tasks()),
                    if only_one { "it" } else { "one of its kind" },
                    commands(self.sleepers.iter().copied())
                ),
                tasks => format!("{} in it: {}", sleep(tasks), commands(there.into_iter())),
            };
            Party {
                who: format!(
                    "{} of {}, at {}",
                    it.first.file_system,
                    it.first.source,
                    it.places()
                ),
                share,
            }
        };
        mounts.iter().map(party).collect()
    }
}

/// Whether these may be what a cgroup waits for: its tasks, or tasks of a cgroup that is not known.
/// Kernel threads are in none.
fn may_be_of(sleepers: &Sleepers, cgroup: &CgroupReading) -> bool {
    let path = sleepers.cgroup.as_str();
    path.is_empty() || path == "/" || is_at_or_below(path, &cgroup.path)
}

fn sleepers<'r>(judge: Judge<'r>) -> impl Iterator<Item = &'r Sleepers> {
    let sleeping = judge.reading.node.sleeping.iter();
    sleeping.flat_map(|it| &it.sleepers)
}

/// A file system that is mounted at one place or more.
struct FileSystem<'r> {
    first: &'r Mount,
    others: usize,
}

impl<'r> FileSystem<'r> {
    /// Mounts with the same number are of one file system.
    fn group(mounts: impl Iterator<Item = &'r Mount>) -> Vec<Self> {
        let mounts: BTreeSet<_> = mounts.collect();
        let mut all: Vec<Self> = Vec::new();
        for mount in mounts {
            match all.iter_mut().find(|it| it.is(mount)) {
                Some(known) => known.others += 1,
                None => all.push(Self {
                    first: mount,
                    others: 0,
                }),
            }
        }
        all
    }

    fn is(&self, mount: &Mount) -> bool {
        let known = !mount.device.is_empty();
        self.first == mount || (known && self.first.device == mount.device)
    }

    fn has(&self, sleepers: &Sleepers) -> bool {
        sleepers.mount.as_ref().is_some_and(|mount| self.is(mount))
    }

    fn places(&self) -> String {
        let first = self.first.place.display();
        match self.others {
            0 => first.to_string(),
            1 => format!("{first} and 1 more place"),
            more => format!("{first} and {more} more places"),
        }
    }
}

/// The commands of the tasks that sleep somewhere, those of most tasks first.
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
fn file_systems(mounts: &[FileSystem<'_>], place: Place) -> String {
    let name = |it: &FileSystem<'_>| {
        let mount = it.first;
        format!(
            "{} ({} of {})",
            it.places(),
            mount.file_system,
            mount.source
        )
    };
    match mounts {
        [] => format!("a file system of the kind {place:?}, which is mounted elsewhere"),
        [one] => name(one),
        [first, rest @ ..] => format!("{} or {} more of its kind", name(first), rest.len()),
    }
}

fn sleep(tasks: u64) -> String {
    match tasks {
        1 => "1 task sleeps".to_owned(),
        tasks => format!("{tasks} tasks sleep"),
    }
}

/// What does not explain the waits, with its number.
fn ruled_out(judge: Judge<'_>, victims: &[&CgroupReading]) -> String {
    let node = &judge.reading.node;
    let disk = match node.disks.as_deref() {
        None => "/proc/diskstats shows no statistics of disks".to_owned(),
        Some([]) => "no disk was busy".to_owned(),
        Some([disk, ..]) => format!(
            "the busiest disk, {}, was busy for {:.1} % of the time",
            disk.name,
            100.0 * judge.share(disk.busy_seconds)
        ),
    };
    let tasks = match &node.sleeping {
        Some(sleeping) if sleeping.sleepers.is_empty() && sleeping.complete => {
            "no task slept in I/O at the end of the window".to_owned()
        }
        Some(sleeping) => asleep(judge, sleeping.complete, victims),
        None => "sleeping tasks were not looked at".to_owned(),
    };
    format!("{disk}, no io.max was reached, and {tasks}")
}

/// Where tasks sleep that do not explain the waits.
fn asleep(judge: Judge<'_>, complete: bool, victims: &[&CgroupReading]) -> String {
    let of = |place: Place| sleepers(judge).filter(move |it| it.place == place);
    let count = |place: Place| of(place).map(|it| it.tasks).fold(0, u64::saturating_add);
    let all = if complete { "" } else { "at least " };
    let (hidden, other) = (count(Place::Hidden), count(Place::Other));
    if hidden > 0 {
        return format!(
            "{all}{} slept where the kernel does not show it ({}; that takes root and \
             CAP_SYS_ADMIN)",
            count_of_tasks(hidden),
            commands(of(Place::Hidden))
        );
    }
    if other > 0 {
        return format!(
            "{all}{} slept outside of network file systems ({})",
            count_of_tasks(other),
            commands(of(Place::Other))
        );
    }
    let elsewhere = sleepers(judge).filter(|it| it.place.is_remote());
    let elsewhere = elsewhere.map(|it| it.tasks).fold(0, u64::saturating_add);
    if elsewhere > 0 && !victims.is_empty() {
        return format!(
            "{all}{} in network file systems slept in other cgroups",
            count_of_tasks(elsewhere)
        );
    }
    if complete {
        "no task slept in a network file system".to_owned()
    } else {
        "not all tasks could be looked at in time".to_owned()
    }
}

/// Whether most of what a disk did was swapping.
fn swaps(judge: Judge<'_>, disk: &DiskReading) -> bool {
    /// Of a page, bytes: the smallest there is.
    const PAGE: u64 = 4_096;
    let events = &judge.reading.node.events;
    let pages = events.swap_in.saturating_add(events.swap_out);
    let swapped = pages.saturating_mul(PAGE);
    swapped.saturating_mul(2) > disk.read_bytes.saturating_add(disk.written_bytes) && swapped > 0
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
        moved.read_bytes.saturating_add(moved.written_bytes) as f64
    };
    let disks = judge.reading.node.disks.iter().flatten();
    let disk = disks
        .filter(|disk| disk.device == device)
        .map(|disk| disk.read_bytes.saturating_add(disk.written_bytes));
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
