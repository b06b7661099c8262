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

/// Time that a CPU, or all of them, have spent since boot, by what they did (`/proc/stat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In tasks, in user mode and in the kernel.
    pub tasks: Duration,
    /// With nothing to do, or while a task waits for I/O.
    pub idle: Duration,
    /// In interrupts.
    pub irq: Duration,
    /// In softirqs.
    pub softirq: Duration,
    /// The hypervisor ran something else.
    pub steal: Duration,
}

/// All CPUs together, and each by its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// The sum.
    pub all: CpuTime,
    /// By number; those that are offline are absent.
    pub each: BTreeMap<u32, CpuTime>,
}

impl CpuTime {
    /// `USER_HZ`, which is 100 on every machine that Linux's user space knows.
    const TICK_MS: u64 = 10;

    /// Time at work.
    pub const fn busy(&self) -> Duration {
        let interrupts = self.irq.saturating_add(self.softirq);
        self.tasks.saturating_add(interrupts)
    }

    /// What has been added since.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            tasks: self.tasks.saturating_sub(before.tasks),
            idle: self.idle.saturating_sub(before.idle),
            irq: self.irq.saturating_sub(before.irq),
            softirq: self.softirq.saturating_sub(before.softirq),
            steal: self.steal.saturating_sub(before.steal),
        }
    }

    /// user nice system idle iowait irq softirq steal; guest time is part of user.
    fn parse(numbers: &str) -> Option<Self> {
        let ticks: Vec<u64> = numbers
            .split_whitespace()
            .map(|ticks| ticks.parse().ok())
            .collect::<Option<_>>()?;
        let sum = |places: &[usize]| {
            let ticks = places.iter().filter_map(|place| ticks.get(*place));
            let ticks = ticks.fold(0_u64, |sum, ticks| sum.saturating_add(*ticks));
            Duration::from_millis(ticks.saturating_mul(Self::TICK_MS))
        };
        Some(Self {
            tasks: sum(&[0, 1, 2]),
            idle: sum(&[3, 4]),
            irq: sum(&[5]),
            softirq: sum(&[6]),
            steal: sum(&[7]),
        })
    }
}

impl CpuTimes {
    fn parse(text: &str) -> Option<Self> {
        let all = CpuTime::parse(text.lines().next()?.strip_prefix("cpu ")?)?;
        let each = text.lines().filter_map(|line| {
            let (name, numbers) = line.split_once(' ')?;
            let cpu = name.strip_prefix("cpu")?.parse().ok()?;
            Some((cpu, CpuTime::parse(numbers)?))
        });
        Some(Self {
            all,
            each: each.collect(),
        })
    }
}

/// Softirqs of one CPU since boot, by kind (`/proc/softirqs`).
fn parse_softirqs(text: &str, cpu: u32) -> BTreeMap<String, u64> {
    let mut lines = text.lines();
    let wanted = format!("CPU{cpu}");
    let column = lines
        .next()
        .and_then(|names| names.split_whitespace().position(|name| name == wanted));
    let kind = |line: &str| {
        let (kind, counts) = line.split_once(':')?;
        let count = counts.split_whitespace().nth(column?)?;
        Some((kind.trim().to_owned(), count.parse().ok()?))
    };
    lines.filter_map(kind).collect()
}

/// Reads `/proc/softirqs`: how often each kind ran on a CPU.
///
/// # Errors
///
/// The path and the kernel's error.
pub fn softirqs(cpu: u32) -> io::Result<BTreeMap<String, u64>> {
    read("/proc/softirqs").map(|text| parse_softirqs(&text, cpu))
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
pub fn cpu_times() -> io::Result<CpuTimes> {
    let text = read("/proc/stat")?;
    CpuTimes::parse(&text).ok_or_else(|| {
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
        let text = "cpu  100 0 50 800 200 0 50 7 0 0\ncpu0 40 0 0 5 0 1 30 4\ncpu12 1\nintr 0\n";
        let times = CpuTimes::parse(text).expect("as proc(5) has it");
        assert_eq!(times.all.busy(), Duration::from_secs(2));
        assert_eq!(times.all.idle, Duration::from_secs(10));
        assert_eq!(times.all.steal, Duration::from_millis(70));
        assert_eq!(times.each[&0].softirq, Duration::from_millis(300));
        assert_eq!(times.each.keys().collect::<Vec<_>>(), [&0, &12]);
        for garbled in ["", "cpu0 1 2 3", "cpu  a b", "\0"] {
            assert_eq!(CpuTimes::parse(garbled), None, "{garbled:?}");
        }
    }

    #[test]
    fn ticks_of_many_cpus_do_not_wrap() {
        // 128 CPUs at work for a year.
        let ticks = 128 * 365 * 86_400 * 100_u64;
        let times = CpuTimes::parse(&format!("cpu  {ticks} 0 0 0\n")).expect("a line");
        assert_eq!(times.all.busy().as_secs(), ticks / 100);
    }

    #[test]
    fn softirqs_are_those_of_the_cpu() {
        let text =
            "                    CPU0       CPU2\n  NET_RX:  5   70\n   TIMER: 1 2\nRCU: x\n";
        let of = |cpu| parse_softirqs(text, cpu);
        assert_eq!(of(2)["NET_RX"], 70);
        assert_eq!(of(0)["TIMER"], 1);
        assert!(of(1).is_empty() && parse_softirqs("", 0).is_empty());
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
