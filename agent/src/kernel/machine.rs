//! Counters of the whole machine in procfs: memory management, CPUs, disks.

use std::{collections::BTreeMap, fs, io, time::Duration};

use serde::{Deserialize, Serialize};

/// Events of memory management since boot, of `/proc/vmstat`.
///
/// `allocstall`, `pgscan` and `pgsteal` leave out what a cgroup's own limit brings about
/// (mm/vmscan.c, `cgroup_reclaim`): they grow when the *node* is short of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    /// Allocations that had to reclaim by themselves before they went on.
    pub allocstall: u64,
    /// Pages looked at by such allocations.
    pub pgscan_direct: u64,
    /// Pages looked at by the kernel's reclaimer, kswapd.
    pub pgscan_kswapd: u64,
    /// Pages that allocations have reclaimed.
    pub pgsteal_direct: u64,
    /// Pages that kswapd has reclaimed.
    pub pgsteal_kswapd: u64,
    /// Pages that were needed again soon after they had been reclaimed.
    pub refault: u64,
    /// Pages read back from swap.
    pub swap_in: u64,
    /// Pages written to swap.
    pub swap_out: u64,
    /// Allocations that had to wait for memory to be moved together.
    pub compact_stall: u64,
}

impl MemoryEvents {
    /// Each with what labels call it.
    pub const fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("allocstall", self.allocstall),
            ("pgscan_direct", self.pgscan_direct),
            ("pgscan_kswapd", self.pgscan_kswapd),
            ("pgsteal_direct", self.pgsteal_direct),
            ("pgsteal_kswapd", self.pgsteal_kswapd),
            ("refault", self.refault),
            ("swap_in", self.swap_in),
            ("swap_out", self.swap_out),
            ("compact_stall", self.compact_stall),
        ]
    }

    /// What has been added since.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            allocstall: self.allocstall.saturating_sub(before.allocstall),
            pgscan_direct: self.pgscan_direct.saturating_sub(before.pgscan_direct),
            pgscan_kswapd: self.pgscan_kswapd.saturating_sub(before.pgscan_kswapd),
            pgsteal_direct: self.pgsteal_direct.saturating_sub(before.pgsteal_direct),
            pgsteal_kswapd: self.pgsteal_kswapd.saturating_sub(before.pgsteal_kswapd),
            refault: self.refault.saturating_sub(before.refault),
            swap_in: self.swap_in.saturating_sub(before.swap_in),
            swap_out: self.swap_out.saturating_sub(before.swap_out),
            compact_stall: self.compact_stall.saturating_sub(before.compact_stall),
        }
    }

    /// A counter is split by zone (`allocstall_normal`) or by kind of page
    /// (`workingset_refault_file`, from 5.9 on); a name of its own is no part
    /// (`pgscan_direct_throttle`).
    fn parse(text: &str) -> Self {
        let mut events = Self::default();
        for (name, value) in pairs(text) {
            let counter = match name {
                "pgscan_direct" => &mut events.pgscan_direct,
                "pgscan_kswapd" => &mut events.pgscan_kswapd,
                "pgsteal_direct" => &mut events.pgsteal_direct,
                "pgsteal_kswapd" => &mut events.pgsteal_kswapd,
                "pswpin" => &mut events.swap_in,
                "pswpout" => &mut events.swap_out,
                "compact_stall" => &mut events.compact_stall,
                _ if name.starts_with("allocstall") => &mut events.allocstall,
                _ if name.starts_with("workingset_refault") => &mut events.refault,
                _ => continue,
            };
            *counter += value;
        }
        events
    }
}

/// Where the machine's memory is, bytes (`/proc/meminfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What could be given out without swapping.
    pub available: u64,
    /// What waits to be written to disk.
    pub dirty: u64,
    /// What is being written.
    pub writeback: u64,
    /// Swap there is.
    pub swap: u64,
}

impl Memory {
    fn parse(text: &str) -> Self {
        let kib = |wanted: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let (_, rest) = lines.into_iter().find(|(name, _)| *name == wanted)?;
            let number = rest.split_whitespace().next()?.parse::<u64>().ok()?;
            Some(number.saturating_mul(1024))
        };
        Self {
            total: kib("MemTotal").unwrap_or(0),
            available: kib("MemAvailable").unwrap_or(0),
            dirty: kib("Dirty").unwrap_or(0),
            writeback: kib("Writeback").unwrap_or(0),
            swap: kib("SwapTotal").unwrap_or(0),
        }
    }
}

/// Time that all CPUs have spent since boot (first line of `/proc/stat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// At work.
    pub busy: Duration,
    /// With nothing to do, or waiting for a disk.
    pub idle: Duration,
}

impl CpuTime {
    /// `USER_HZ`, which is 100 on every machine that Linux's user space knows.
    const TICK: Duration = Duration::from_millis(10);

    /// user nice system idle iowait irq softirq steal; guest time is part of user.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u32> = line
            .split_whitespace()
            .map(|ticks| ticks.parse::<u64>().ok().map(|ticks| ticks as u32))
            .collect::<Option<_>>()?;
        let sum = |places: &[usize]| {
            let ticks = places.iter().filter_map(|place| ticks.get(*place));
            ticks.map(|ticks| Self::TICK * *ticks).sum()
        };
        Some(Self {
            busy: sum(&[0, 1, 2, 5, 6]),
            idle: sum(&[3, 4]),
        })
    }
}

/// What a disk has done since boot (a line of `/proc/diskstats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTime {
    /// For how long it had something to do.
    pub busy: Duration,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// Name of a disk and its counters, by `major:minor`.
pub type Disks = BTreeMap<String, (String, DiskTime)>;

/// Documentation/admin-guide/iostats.rst; sectors are of 512 bytes whatever the disk's are.
fn parse_disks(text: &str) -> Disks {
    let disk = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let time = DiskTime {
            busy: Duration::from_millis(number(12)?),
            read: number(5)?.saturating_mul(512),
            written: number(9)?.saturating_mul(512),
        };
        let device = format!("{}:{}", number(0)?, number(1)?);
        Some((device, ((*fields.get(2)?).to_owned(), time)))
    };
    text.lines().filter_map(disk).collect()
}

/// `name value` on each line; what is none is left out.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

/// Reads `/proc/vmstat`.
///
/// # Errors
///
/// The path and the kernel's error.
pub fn memory_events() -> io::Result<MemoryEvents> {
    read("/proc/vmstat").map(|text| MemoryEvents::parse(&text))
}

/// Reads `/proc/meminfo`.
///
/// # Errors
///
/// The path and the kernel's error.
pub fn memory() -> io::Result<Memory> {
    read("/proc/meminfo").map(|text| Memory::parse(&text))
}

/// Reads `/proc/stat`.
///
/// # Errors
///
/// The path and the kernel's error, or that it has another form.
pub fn cpu_time() -> io::Result<CpuTime> {
    let text = read("/proc/stat")?;
    CpuTime::parse(&text).ok_or_else(|| {
        let what = "read /proc/stat: its first line is not that of all CPUs";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Reads `/proc/diskstats`.
///
/// # Errors
///
/// The path and the kernel's error.
pub fn disks() -> io::Result<Disks> {
    read("/proc/diskstats").map(|text| parse_disks(&text))
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("read {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_are_split_are_added_up_and_others_left_out() {
        let text = "allocstall_dma32 1\nallocstall_normal 2\nallocstall_movable 4\n\
                    pgscan_direct 10\npgscan_direct_throttle 99\npgscan_kswapd 20\n\
                    workingset_refault_anon 3\nworkingset_refault_file 5\npswpin 7\n\
                    compact_stall 6\nnonsense\nworse x\n";
        let events = MemoryEvents::parse(text);
        assert_eq!(events.allocstall, 7);
        assert_eq!((events.pgscan_direct, events.pgscan_kswapd), (10, 20));
        assert_eq!(
            (events.refault, events.swap_in, events.compact_stall),
            (8, 7, 6)
        );
    }

    #[test]
    fn memory_is_in_bytes_and_what_is_missing_is_zero() {
        let text = "MemTotal:       12288 kB\nMemAvailable:    1024 kB\nDirty:             8 kB\n";
        let memory = Memory::parse(text);
        assert_eq!(
            (memory.total, memory.dirty, memory.swap),
            (12 << 20, 8 << 10, 0)
        );
        assert_eq!(
            Memory::parse("garbage\n:::\nMemTotal: x kB"),
            Memory::default()
        );
    }

    #[test]
    fn iowait_is_idle_and_softirq_is_busy() {
        let time = CpuTime::parse("cpu  100 0 50 800 200 0 50 0 0 0\ncpu0 1 2 3\n");
        let time = time.expect("as proc(5) has it");
        assert_eq!(time.busy, Duration::from_secs(2));
        assert_eq!(time.idle, Duration::from_secs(10));
        for garbled in ["", "cpu0 1 2 3", "cpu  a b", "\0"] {
            assert_eq!(CpuTime::parse(garbled), None, "{garbled:?}");
        }
    }

    #[test]
    fn a_disk_is_known_by_its_number_and_a_garbled_line_is_left_out() {
        let text = " 253       0 vda 10 0 16 5 20 0 32 6 0 1500 11 0 0 0 0 0 0\n 7 0 loop0 1\nx\n";
        let disks = parse_disks(text);
        assert_eq!(disks.len(), 1);
        let (name, time) = &disks["253:0"];
        assert_eq!(name, "vda");
        assert_eq!(time.busy, Duration::from_millis(1_500));
        assert_eq!((time.read, time.written), (8_192, 16_384));
    }
}
