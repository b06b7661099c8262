//! The node as a whole: procfs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use anyhow::Context as _;

use super::{CpuReading, DiskReading, InterruptedCpu, NodeReading, Stalls, Waits};
use crate::kernel::{
    machine::{self, CpuTime, CpuTimes, DiskWindow, Disks, MemoryEvents, Softirqs},
    netns,
    pressure::{self, Resource},
    sysctl,
};

/// Disks that a reading names.
const DISKS: usize = 3;

/// Kinds of softirqs that a reading names.
const SOFTIRQS: usize = 3;

/// What treatments and advice are about.
const SYSCTLS: [&str; 6] = [
    "vm.watermark_scale_factor",
    "vm.min_free_kbytes",
    "vm.swappiness",
    "vm.dirty_background_ratio",
    "vm.dirty_ratio",
    "vm.compaction_proactiveness",
];

/// The counters as they were at the last reading.
#[derive(Debug)]
pub(super) struct Node {
    netns: u32,
    stalls: Stalls,
    /// Whether the kernel accounts the time of interrupts.
    irq: bool,
    /// Why not, else.
    cpu: Result<CpuTimes, String>,
    /// The part of the last window for which each CPU was idle, where that is known.
    idle: BTreeMap<u32, f64>,
    softirqs: Option<Softirqs>,
    events: MemoryEvents,
    /// `None` where none is shown although there are some: lxcfs has an empty file.
    disks: Option<Disks>,
    /// Those of the disks that have done something since the last look.
    active: BTreeSet<String>,
}

impl Node {
    /// Takes the first look.
    pub(super) fn begin() -> anyhow::Result<Self> {
        let (stalls, irq) = stalls()?;
        Ok(Self {
            netns: netns::own().context("find our own network namespace")?,
            stalls,
            irq,
            cpu: machine::cpu_times().map_err(|error| error.to_string()),
            idle: BTreeMap::new(),
            softirqs: machine::softirqs().ok(),
            events: machine::memory_events()?,
            disks: machine::disks()
                .ok()
                .filter(|disks| !disks.is_empty() || machine::is_diskless()),
            active: BTreeSet::new(),
        })
    }

    /// What has changed since the last look, which was so long ago, and the stalls of it once more,
    /// exactly. These CPUs are online, where that is known.
    pub(super) fn read(
        &mut self,
        length: Duration,
        online: Option<&BTreeSet<u32>>,
    ) -> anyhow::Result<(NodeReading, Stalls)> {
        let before = std::mem::replace(self, Self::begin()?);
        let cpu = self.cpu_since(&before, length, online);
        let known = cpu.as_ref().ok();
        self.idle = known.map(CpuTimes::idle_shares).unwrap_or_default();
        let disks = self.disks_since(&before, length);
        let moved = disks.iter().flatten().filter(|(_, it)| it.completed > 0);
        self.active = moved.map(|(name, _)| name.clone()).collect();
        let window: Stalls = std::array::from_fn(|i| self.stalls[i].since(before.stalls[i]));
        let sysctls = SYSCTLS.into_iter().filter_map(|key| {
            let value = sysctl::read_number(key).ok().flatten()?;
            Some((key.to_owned(), value))
        });
        let reading = NodeReading {
            total: Waits::new(&self.stalls),
            window: Waits::new(&window),
            irq: self.irq,
            busy_seconds: known.map(|it| it.all.busy().as_secs_f64()),
            cpu: known.map(|it| it.all.into()),
            interrupted: known.and_then(|it| self.interrupted(&before, it)),
            cpu_doubt: cpu.as_ref().err().cloned(),
            softirqs: self.softirqs_since(&before, None),
            isolated_cpus: None,
            sleeping: None,
            mounts: Vec::new(),
            events_total: self.events,
            events: self.events.since(before.events),
            memory: machine::memory()?,
            disks: disks.map(|disks| self.busiest(disks, length)),
            uncounted: Vec::new(),
            sysctls: sysctls.collect(),
            netns: self.netns,
        };
        Ok((reading, window))
    }
}

impl Node {
    /// The part of the last window for which each CPU was idle, where that is known.
    pub(super) fn idle(&self) -> &BTreeMap<u32, f64> {
        &self.idle
    }

    /// What the CPUs did, or why that is not known.
    fn cpu_since(
        &self,
        before: &Self,
        length: Duration,
        online: Option<&BTreeSet<u32>>,
    ) -> Result<CpuTimes, String> {
        let (now, before) = (self.cpu.as_ref()?, before.cpu.as_ref()?);
        let window = now.window(before, length, online);
        window.map_err(|why| format!("/proc/stat cannot be true: {why}"))
    }

    /// The CPU that interrupts took most of.
    fn interrupted(&self, before: &Self, times: &CpuTimes) -> Option<InterruptedCpu> {
        let each = times.each.iter();
        let (cpu, time) = each.max_by_key(|(_, time)| time.irq + time.softirq)?;
        Some(InterruptedCpu {
            cpu: *cpu,
            time: (*time).into(),
            softirqs: self.softirqs_since(before, Some(*cpu)),
        })
    }

    /// The kinds of softirqs that ran most, on one CPU or on all.
    fn softirqs_since(&self, before: &Self, cpu: Option<u32>) -> Vec<(String, u64)> {
        let (Some(now), Some(before)) = (&self.softirqs, &before.softirqs) else {
            return Vec::new();
        };
        let mut kinds = now.since(before, cpu);
        kinds.truncate(SOFTIRQS);
        kinds
    }

    fn disks_since(&self, before: &Self, length: Duration) -> Option<BTreeMap<String, DiskWindow>> {
        let before = before.disks.as_ref();
        let window = |(name, now): (&String, &machine::DiskTime)| {
            let before = before.and_then(|before| before.get(name));
            (name.clone(), now.since(before, length))
        };
        Some(self.disks.as_ref()?.iter().map(window).collect())
    }

    /// The disks with these numbers that completed nothing, as far as the kernel counts.
    pub(super) fn without_statistics(&self, used: &BTreeSet<&String>) -> Vec<(String, String)> {
        let disks = self.disks.iter().flatten();
        let silent = disks.filter(|(name, disk)| {
            used.contains(&disk.device) && !self.active.contains(*name) && !self.has_paths(name)
        });
        let silent = silent.map(|(name, disk)| (name.clone(), disk.device.clone()));
        silent.collect()
    }

    /// Whether the paths to this NVMe disk are counted in its place.
    fn has_paths(&self, disk: &str) -> bool {
        let mut active = self.active.iter();
        active.any(|name| head_of(name).as_deref() == Some(disk))
    }

    fn busiest(&self, windows: BTreeMap<String, DiskWindow>, length: Duration) -> Vec<DiskReading> {
        let none = Disks::new();
        let known = self.disks.as_ref().unwrap_or(&none);
        busiest(known, windows, length)
    }
}

/// `nvme0n1` of its path `nvme0c1n1` (drivers/nvme/host/multipath.c, `nvme_mpath_set_disk_name`).
fn head_of(path: &str) -> Option<String> {
    let (controller, rest) = path.strip_prefix("nvme")?.split_once('c')?;
    let (number, space) = rest.split_once('n')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    [controller, number, space]
        .into_iter()
        .all(digits)
        .then(|| format!("nvme{controller}n{space}"))
}

impl From<CpuTime> for CpuReading {
    fn from(time: CpuTime) -> Self {
        Self {
            tasks: time.tasks.as_secs_f64(),
            idle: time.idle.as_secs_f64(),
            irq: time.irq.as_secs_f64(),
            softirq: time.softirq.as_secs_f64(),
            steal: time.steal.as_secs_f64(),
        }
    }
}

/// The totals, and whether that of the interrupts is among them.
fn stalls() -> anyhow::Result<(Stalls, bool)> {
    let mut stalls = Stalls::default();
    let mut irq = false;
    for (resource, stall) in Resource::ALL.into_iter().zip(&mut stalls) {
        let path = resource.of_node();
        match pressure::read(&path) {
            Ok(read) => {
                *stall = read;
                irq |= resource == Resource::Irq;
            }
            Err(error) if resource == Resource::Irq && is_absent(&error) => {}
            Err(error) => {
                let hint = match error.raw_os_error() {
                    Some(libc::EOPNOTSUPP) => "; PSI is off: boot with psi=1",
                    _ => "",
                };
                return Err(error).with_context(|| format!("read {}{hint}", path.display()));
            }
        }
    }
    Ok((stalls, irq))
}

/// Without `CONFIG_IRQ_TIME_ACCOUNTING`, or with it switched off, nobody knows.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

/// `sda1` of `sda`, `nvme0n1p3` of `nvme0n1`: what it does, its disk does (block/genhd.c,
/// `disk_name`).
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(number) = name.strip_prefix(disk) else {
        return false;
    };
    let number = match disk.ends_with(|last: char| last.is_ascii_digit()) {
        true => number.strip_prefix('p').unwrap_or_default(),
        false => number,
    };
    !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())
}

fn busiest(
    known: &Disks,
    windows: BTreeMap<String, DiskWindow>,
    length: Duration,
) -> Vec<DiskReading> {
    let disk = |(name, window): &(String, DiskWindow)| {
        if known.keys().any(|disk| is_partition(name, disk)) {
            return None;
        }
        let stuck = window.completed == 0 && window.in_flight > 0 && window.was_in_flight;
        // A driver that completes nothing and holds nothing is not at work, whatever it counts.
        let idle = window.completed == 0 && window.in_flight == 0 && !window.was_in_flight;
        let busy = match window.busy {
            // Until a request ends, not every kernel counts its time.
            _ if stuck => length,
            _ if idle => return None,
            Some(busy) if !busy.is_zero() => busy,
            Some(_) | None => return None,
        };
        // The disk that users know, where the kernel counts its paths alone.
        let head = head_of(name).filter(|head| known.contains_key(head));
        let counted = known.get(head.as_ref().unwrap_or(name))?;
        Some(DiskReading {
            device: counted.device.clone(),
            busy_seconds: busy.as_secs_f64(),
            read_bytes: window.read,
            written_bytes: window.written,
            completed: window.completed,
            in_flight: window.in_flight,
            stuck,
            below: Vec::new(),
            name: head.unwrap_or_else(|| name.clone()),
        })
    };
    let windows: Vec<_> = windows.into_iter().collect();
    let mut disks: Vec<_> = windows.iter().filter_map(disk).collect();
    disks.sort_by(|a, b| b.busy_seconds.total_cmp(&a.busy_seconds));
    let mut seen = BTreeSet::new();
    disks.retain(|disk| seen.insert(disk.name.clone()));
    disks.truncate(DISKS);
    for disk in &mut disks {
        disk.below = machine::below(&disk.name);
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{machine::DiskTime, pressure::Stall};

    const LENGTH: Duration = Duration::from_secs(4);

    /// Disks with what they have been busy, milliseconds, have completed, and have in flight.
    fn disks(all: &[(&str, u32, u64, u64)]) -> Disks {
        let disk = |(name, busy_ms, completed, in_flight): &(&str, u32, u64, u64)| {
            let time = DiskTime {
                device: format!("8:{}", name.len()),
                busy_ms: *busy_ms,
                completed: *completed,
                in_flight: *in_flight,
                ..DiskTime::default()
            };
            ((*name).to_owned(), time)
        };
        all.iter().map(disk).collect()
    }

    fn busy(before: &Disks, now: &Disks) -> Vec<(String, f64, bool)> {
        let windows = now.iter();
        let windows =
            windows.map(|(name, now)| (name.clone(), now.since(before.get(name), LENGTH)));
        let found = busiest(now, windows.collect(), LENGTH).into_iter();
        found
            .map(|disk| (disk.name, disk.busy_seconds, disk.stuck))
            .collect()
    }

    #[test]
    fn the_busiest_disk_comes_first_and_idle_ones_are_left_out() {
        let before = disks(&[("vda", 100, 1, 0), ("vdb", 50, 1, 0), ("vdc", 7, 1, 0)]);
        let now = disks(&[
            ("vda", 200, 2, 0),
            ("vdb", 950, 2, 0),
            ("vdc", 7, 1, 0),
            ("vdd", 300, 2, 0),
        ]);
        let names: Vec<_> = busy(&before, &now).into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["vdb", "vdd", "vda"]);
    }

    /// sysstat#405, rook#3132.
    #[test]
    fn a_disk_that_answers_nothing_is_told_from_one_that_is_asked_nothing() {
        let before = disks(&[("nvme0n1", 0, 5, 0), ("rbd0", 900, 5, 34)]);
        let now = disks(&[("nvme0n1", 4_000, 5, 0), ("rbd0", 900, 5, 34)]);
        assert_eq!(busy(&before, &now), [("rbd0".to_owned(), 4.0, true)]);
        // One request that ended is an answer.
        let now = disks(&[("nvme0n1", 4_000, 5, 0), ("rbd0", 1_900, 6, 34)]);
        assert_eq!(busy(&before, &now), [("rbd0".to_owned(), 1.0, false)]);
    }

    #[test]
    fn a_partition_is_its_disk_and_a_second_volume_is_not_the_first() {
        for (name, disk, is) in [
            ("sda1", "sda", true),
            ("nvme0n1p3", "nvme0n1", true),
            ("cciss/c0d1p2", "cciss/c0d1", true),
            ("dm-10", "dm-1", false),
            ("sdab", "sda", false),
            ("sda", "sda", false),
        ] {
            assert_eq!(is_partition(name, disk), is, "{name} of {disk}");
        }
        let before = disks(&[("sda", 0, 1, 0), ("sda1", 0, 1, 0)]);
        let now = disks(&[("sda", 900, 9, 0), ("sda1", 900, 9, 0)]);
        assert_eq!(busy(&before, &now), [("sda".to_owned(), 0.9, false)]);
    }

    #[test]
    fn paths_of_an_nvme_disk_are_that_disk() {
        let before = disks(&[
            ("nvme0c0n1", 0, 1, 0),
            ("nvme0c1n1", 0, 1, 0),
            ("nvme0n1", 0, 0, 0),
        ]);
        let now = disks(&[
            ("nvme0c0n1", 3_800, 9, 0),
            ("nvme0c1n1", 100, 2, 0),
            ("nvme0n1", 0, 0, 0),
        ]);
        assert_eq!(busy(&before, &now), [("nvme0n1".to_owned(), 3.8, false)]);
        for other in ["nvme0n1", "nvme0c0n1p1", "sda", "nvmecn"] {
            assert_eq!(head_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_node_without_interrupt_accounting_is_told_from_one_without_psi() {
        assert!(is_absent(&io::Error::from_raw_os_error(libc::ENOENT)));
        assert!(is_absent(&io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        assert!(!is_absent(&io::Error::from_raw_os_error(libc::EACCES)));
    }

    #[test]
    fn stalls_are_by_the_order_of_the_resources() {
        let stalls: Stalls = std::array::from_fn(|i| Stall {
            some: Duration::from_secs(i as u64),
            full: Duration::ZERO,
        });
        let waits = Waits::new(&stalls);
        for (resource, stall) in Resource::ALL.into_iter().zip(stalls) {
            assert_eq!(waits.of(resource).some, stall.some.as_secs_f64());
        }
    }
}
