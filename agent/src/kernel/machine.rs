//! Counters of the whole machine in procfs: memory management, CPUs, disks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    time::Duration,
};

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
            *counter = counter.saturating_add(value);
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
    /// Swap that is free.
    #[serde(default)]
    pub swap_free: u64,
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
            swap_free: kib("SwapFree").unwrap_or(0),
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

impl CpuTimes {
    /// The part of its time for which each CPU was idle.
    pub fn idle_shares(&self) -> BTreeMap<u32, f64> {
        let share = |(cpu, time): (&u32, &CpuTime)| {
            let total = time.total().as_secs_f64();
            (total > 0.0).then(|| (*cpu, time.idle.as_secs_f64() / total))
        };
        self.each.iter().filter_map(share).collect()
    }
}

impl CpuTime {
    /// `USER_HZ`, which is 100 on every machine that Linux's user space knows.
    const TICK_MS: u64 = 10;

    /// Two numbers of the same time differ by so much.
    const ROUNDING: Duration = Duration::from_millis(2 * Self::TICK_MS);

    /// Time at work.
    pub const fn busy(&self) -> Duration {
        let interrupts = self.irq.saturating_add(self.softirq);
        self.tasks.saturating_add(interrupts)
    }

    /// All of it: of one CPU as long as the CPU was there.
    pub fn total(&self) -> Duration {
        let parts = self.parts().into_iter().map(|(_, time)| time);
        parts.fold(Duration::ZERO, Duration::saturating_add)
    }

    const fn parts(&self) -> [(&'static str, Duration); 5] {
        [
            ("time in tasks", self.tasks),
            ("idle time", self.idle),
            ("time in interrupts", self.irq),
            ("time in softirqs", self.softirq),
            ("steal", self.steal),
        ]
    }

    /// What has been added since, or which part went backwards. The kernel rounds each part to a
    /// tick, and may take back a little of its iowait (`get_cpu_iowait_time_us`).
    fn since(self, before: Self) -> Result<Self, &'static str> {
        let pairs = self.parts().into_iter().zip(before.parts());
        let back = |now: Duration, before: Duration| before.saturating_sub(now) > Self::ROUNDING;
        let fell = pairs.map(|((name, now), (_, before))| (name, back(now, before)));
        if let Some((name, _)) = fell.into_iter().find(|(_, back)| *back) {
            return Err(name);
        }
        Ok(Self {
            tasks: self.tasks.saturating_sub(before.tasks),
            idle: self.idle.saturating_sub(before.idle),
            irq: self.irq.saturating_sub(before.irq),
            softirq: self.softirq.saturating_sub(before.softirq),
            steal: self.steal.saturating_sub(before.steal),
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            tasks: self.tasks.saturating_add(other.tasks),
            idle: self.idle.saturating_add(other.idle),
            irq: self.irq.saturating_add(other.irq),
            softirq: self.softirq.saturating_add(other.softirq),
            steal: self.steal.saturating_add(other.steal),
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

    /// What the CPUs did since, or why these numbers cannot be true: the parts of each CPU's time
    /// add up to about the window, the CPUs are those that are online, and add up to the line of
    /// all. Hypervisors, suspends and container runtimes that write their own `/proc/stat` break
    /// each of these rules.
    ///
    /// # Errors
    ///
    /// The rule that is broken, and by which CPU.
    pub fn window(
        &self,
        before: &Self,
        window: Duration,
        online: Option<&BTreeSet<u32>>,
    ) -> Result<Self, String> {
        let listed: BTreeSet<u32> = self.each.keys().copied().collect();
        if let Some(online) = online.filter(|online| **online != listed) {
            return Err(format!(
                "it lists {} CPUs, and {} are online",
                listed.len(),
                online.len()
            ));
        }
        let longest = with_tolerance(window);
        let mut sum = CpuTime::default();
        let mut each = BTreeMap::new();
        for (cpu, now) in &self.each {
            let known = before.each.get(cpu).copied();
            let time = now
                .since(known.unwrap_or_default())
                .map_err(|part| format!("the {part} of CPU {cpu} went backwards"))?;
            let total = time.total();
            // A CPU that was added in the window was there for a part of it.
            let short = known.is_some() && total + TOLERANCE < window / 2;
            if total > longest || short {
                return Err(format!(
                    "the times of CPU {cpu} add up to {:.1} s in a window of {:.1} s",
                    total.as_secs_f64(),
                    window.as_secs_f64()
                ));
            }
            sum = sum.plus(time);
            each.insert(*cpu, time);
        }
        let all = self.all.since(before.all);
        let all = all.map_err(|part| format!("the {part} of all CPUs went backwards"))?;
        let cpus = u32::try_from(each.len()).unwrap_or(u32::MAX);
        let most = TOLERANCE + CpuTime::ROUNDING.saturating_mul(cpus.saturating_add(1));
        let pairs = all.parts().into_iter().zip(sum.parts());
        for ((part, of_all), (_, of_each)) in pairs {
            if of_all.abs_diff(of_each) > most {
                return Err(format!(
                    "the {part} of all CPUs is {:.1} s, and that of each adds up to {:.1} s",
                    of_all.as_secs_f64(),
                    of_each.as_secs_f64()
                ));
            }
        }
        Ok(Self { all, each })
    }
}

/// Clocks are read one after the other.
const TOLERANCE: Duration = Duration::from_millis(50);

/// The longest that a time of a window can seem to be.
pub fn with_tolerance(longest: Duration) -> Duration {
    longest
        .saturating_add(longest / 10)
        .saturating_add(TOLERANCE)
}

/// A list of CPUs as the kernel writes it: `0-3,8`. `None` where it is garbled.
pub fn cpu_list(list: &str) -> Option<BTreeSet<u32>> {
    /// More than any kernel is built for.
    const MOST: u32 = 1 << 16;
    let mut cpus = BTreeSet::new();
    let parts = list.trim().split(',').filter(|part| !part.is_empty());
    for part in parts {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// How many CPUs a list has.
pub fn count(cpus: &BTreeSet<u32>) -> u32 {
    u32::try_from(cpus.len()).unwrap_or(u32::MAX)
}

/// The CPUs of `/sys/devices/system/cpu/<which>`, as `online`, and `isolated` of `isolcpus=`.
///
/// # Errors
///
/// The path and the kernel's error, or that it is no list of CPUs.
pub fn cpus(which: &str) -> io::Result<BTreeSet<u32>> {
    let path = format!("/sys/devices/system/cpu/{which}");
    let text = read(&path)?;
    cpu_list(&text).ok_or_else(|| {
        let what = format!("read {path}: it is no list of CPUs");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// How often each kind of softirq ran since boot, by CPU (`/proc/softirqs`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Softirqs(BTreeMap<String, BTreeMap<u32, u64>>);

impl Softirqs {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let names = lines.next().unwrap_or_default().split_whitespace();
        let cpus: Vec<Option<u32>> = names
            .map(|name| name.strip_prefix("CPU")?.parse().ok())
            .collect();
        let kind = |line: &str| {
            let (kind, counts) = line.split_once(':')?;
            let counts = cpus.iter().zip(counts.split_whitespace());
            let counts = counts.filter_map(|(cpu, count)| Some(((*cpu)?, count.parse().ok()?)));
            Some((kind.trim().to_owned(), counts.collect()))
        };
        Self(lines.filter_map(kind).collect())
    }

    /// How often each kind ran since, on one CPU or on all, most first. Counters have 32 bits.
    pub fn since(&self, before: &Self, cpu: Option<u32>) -> Vec<(String, u64)> {
        const WRAPS: u64 = 1 << 32;
        let added = |(kind, now): (&String, &BTreeMap<u32, u64>)| {
            let before = before.0.get(kind)?;
            let wanted = now
                .iter()
                .filter(|(it, _)| cpu.is_none_or(|cpu| cpu == **it));
            let added = wanted.filter_map(|(cpu, now)| {
                let before = *before.get(cpu)?;
                Some(
                    now.checked_sub(before)
                        .unwrap_or(now.saturating_add(WRAPS).saturating_sub(before)),
                )
            });
            Some((kind.clone(), added.fold(0, u64::saturating_add)))
        };
        let mut kinds: Vec<_> = self.0.iter().filter_map(added).collect();
        kinds.retain(|(_, added)| *added > 0);
        kinds.sort_by(|(_, a), (_, b)| b.cmp(a));
        kinds
    }
}

/// Reads `/proc/softirqs`.
///
/// # Errors
///
/// The path and the kernel's error.
pub fn softirqs() -> io::Result<Softirqs> {
    read("/proc/softirqs").map(|text| Softirqs::parse(&text))
}

/// What a disk has done since boot (a line of `/proc/diskstats`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskTime {
    /// `major:minor`. Paths of one NVMe disk share `0:0`, so the name is what tells disks apart.
    pub device: String,
    /// For how long it had something to do, milliseconds of 32 bits.
    pub busy_ms: u32,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Requests completed: reads, writes, and discards and flushes where the kernel counts them.
    pub completed: u64,
    /// Requests that have been begun and have not ended.
    pub in_flight: u64,
}

/// What a disk did in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskWindow {
    /// For how long it had something to do; `None` where the counter cannot be true.
    pub busy: Option<Duration>,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Requests completed.
    pub completed: u64,
    /// Requests in flight at the end of the window.
    pub in_flight: u64,
    /// Whether there were some at its begin, too.
    pub was_in_flight: bool,
}

impl DiskTime {
    /// What has been added since. A number of device-mapper that is used again begins anew.
    pub fn since(&self, before: Option<&Self>, window: Duration) -> DiskWindow {
        let same = before.filter(|it| it.device == self.device && it.completed <= self.completed);
        let none = Self::default();
        let from = same.unwrap_or(&none);
        let ms = |ms: u32| Duration::from_millis(ms.into());
        // Documentation/admin-guide/iostats.rst: milliseconds are unsigned ints, which wrap.
        let added = ms(self.busy_ms.wrapping_sub(from.busy_ms));
        let longest = with_tolerance(window);
        DiskWindow {
            busy: (added <= longest).then(|| added.min(window)),
            read: self.read.saturating_sub(from.read),
            written: self.written.saturating_sub(from.written),
            completed: self.completed.saturating_sub(from.completed),
            in_flight: self.in_flight,
            was_in_flight: from.in_flight > 0,
        }
    }
}

/// Disks by name.
pub type Disks = BTreeMap<String, DiskTime>;

/// Documentation/admin-guide/iostats.rst; sectors are of 512 bytes whatever the disk's are.
fn parse_disks(text: &str) -> Disks {
    /// No queue is as deep: a counter below zero.
    const DEEPEST: u64 = 1 << 24;
    let disk = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        let later = |place: usize| number(place).unwrap_or(0);
        let time = DiskTime {
            device: format!("{}:{}", number(0)?, number(1)?),
            // The low 32 bits are what a kernel that prints more would print, too.
            busy_ms: (number(12)? & u64::from(u32::MAX)).try_into().ok()?,
            read: number(5)?.saturating_mul(512),
            written: number(9)?.saturating_mul(512),
            completed: [number(3)?, number(7)?, later(14), later(18)]
                .into_iter()
                .fold(0, u64::saturating_add),
            in_flight: number(11).filter(|it| *it < DEEPEST).unwrap_or(0),
        };
        Some(((*fields.get(2)?).to_owned(), time))
    };
    text.lines().filter_map(disk).collect()
}

/// Whether the node has no disk at all: `/sys/block` can be read, and is empty.
pub fn is_diskless() -> bool {
    fs::read_dir("/sys/block").is_ok_and(|mut disks| disks.next().is_none())
}

/// The disks that a disk lies on, as those of a logical volume or a RAID
/// (`/sys/block/<disk>/slaves`); empty where there are none, or where they cannot be seen.
pub fn below(disk: &str) -> Vec<String> {
    // sysfs has no slash in a name.
    let folder = format!("/sys/block/{}/slaves", disk.replace('/', "!"));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.map(|name| name.replace('!', "/")).collect();
    names.sort_unstable();
    names
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

/// For fuzzing: the machine's files.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "machine",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = (CpuTimes::parse(&text), Softirqs::parse(&text), parse_disks(&text));
        let _ = (MemoryEvents::parse(&text), Memory::parse(&text), cpu_list(&text));
    },
    seeds: &[
        b"cpu  1 2 3 4 5 6 7 8 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 1\nbtime 1\n",
        b"   8       0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n",
        b"MemTotal:  1024 kB\nMemAvailable: 512 kB\nSwapTotal: 0 kB\n",
        b"pgscan_direct 1\nallocstall_normal 18446744073709551615\n",
        b"                    CPU0       CPU1\n          HI:          1          2\n      NET_RX:          3          4\n",
        b"0-3,8,10-11\n",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_counter_have_no_sum_beyond_all_numbers() {
        let most = format!("allocstall_normal {0}\nallocstall_movable {0}\n", u64::MAX);
        assert_eq!(MemoryEvents::parse(&most).allocstall, u64::MAX);
    }

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

    /// `/proc/stat` of CPUs that spent so many ticks in tasks and idle, and of all of them.
    fn stat(all: [u64; 2], each: &[[u64; 2]]) -> CpuTimes {
        let line =
            |name: &str, [tasks, idle]: [u64; 2]| format!("{name} {tasks} 0 0 {idle} 0 0 0 0\n");
        let each = each.iter().enumerate();
        let each: String = each.map(|(i, it)| line(&format!("cpu{i}"), *it)).collect();
        CpuTimes::parse(&format!("{}{each}", line("cpu ", all))).expect("as proc(5) has it")
    }

    const WINDOW: Duration = Duration::from_secs(4);

    #[test]
    fn times_that_add_up_are_told_and_others_are_not() {
        let before = stat([2_000, 6_000], &[[1_000, 3_000], [1_000, 3_000]]);
        let after = |all, each: &[[u64; 2]]| stat(all, each).window(&before, WINDOW, None);
        let right = after([2_300, 6_500], &[[1_100, 3_300], [1_200, 3_200]]);
        let right = right.expect("each has its 4 s");
        assert_eq!(right.all.busy(), Duration::from_secs(3));
        assert_eq!(right.each[&1].idle, Duration::from_secs(2));
        let wrong = |all, each: &[[u64; 2]], why: &str| {
            let error = after(all, each).expect_err("it cannot be");
            assert!(error.contains(why), "{error}");
        };
        // Years of steal, a suspend, lxcfs, and a runtime that shows a file that never changes.
        wrong(
            [9_000, 6_500],
            &[[7_800, 3_300], [1_200, 3_200]],
            "add up to",
        );
        wrong([2_300, 3_500], &[[1_100, 300], [1_200, 3_200]], "backwards");
        wrong(
            [2_000, 6_000],
            &[[1_100, 3_300], [1_200, 3_200]],
            "of each adds up",
        );
        wrong(
            [2_000, 6_000],
            &[[1_000, 3_000], [1_000, 3_000]],
            "add up to 0.0 s",
        );
    }

    #[test]
    fn cpus_that_are_not_online_are_those_of_another_machine() {
        let before = stat([0, 0], &[[0, 0], [0, 0]]);
        let after = stat([200, 600], &[[100, 300], [100, 300]]);
        let window = |online: &[u32]| {
            let online = online.iter().copied().collect();
            after.window(&before, WINDOW, Some(&online))
        };
        assert!(window(&[0, 1]).is_ok());
        assert!(window(&[0]).is_err_and(|why| why.contains("lists 2 CPUs, and 1 are")));
    }

    #[test]
    fn a_cpu_that_was_added_counts_from_then_on_and_iowait_may_be_taken_back() {
        let before = stat([1_000, 3_000], &[[1_000, 3_000]]);
        let after = stat([1_300, 3_200], &[[1_200, 3_200], [100, 0]]);
        let window = after.window(&before, WINDOW, None).expect("1 s of CPU 1");
        assert_eq!(window.all.busy(), Duration::from_secs(3));
        let before = stat([1_000, 3_001], &[[1_000, 3_001]]);
        let after = stat([1_400, 3_000], &[[1_400, 3_000]]);
        assert!(after.window(&before, WINDOW, None).is_ok());
    }

    #[test]
    fn a_list_of_cpus_has_ranges_and_is_refused_when_it_is_garbled() {
        assert_eq!(cpu_list("0-2,8\n"), Some([0, 1, 2, 8].into()));
        assert_eq!(cpu_list("\n"), Some(BTreeSet::new()));
        for garbled in ["x", "3-1", "0-4294967295", "1-"] {
            assert_eq!(cpu_list(garbled), None, "{garbled}");
        }
    }

    #[test]
    fn softirqs_are_those_of_the_cpu_or_of_all() {
        let text = |rx: u64| {
            format!(
                "                    CPU0       CPU2\n  NET_RX:  5   {rx}\n   TIMER: 1 2\nRCU: x\n"
            )
        };
        let (before, now) = (Softirqs::parse(&text(70)), Softirqs::parse(&text(100)));
        let rx = |new| vec![("NET_RX".to_owned(), new)];
        assert_eq!(now.since(&before, Some(2)), rx(30));
        assert_eq!(now.since(&before, None), rx(30));
        assert!(now.since(&before, Some(0)).is_empty());
        assert!(now.since(&Softirqs::default(), None).is_empty());
        let wrapped = Softirqs::parse(&text((1 << 32) - 5));
        assert_eq!(Softirqs::parse(&text(5)).since(&wrapped, None), rx(10));
    }

    #[test]
    fn a_disk_is_known_by_its_name_and_a_garbled_line_is_left_out() {
        let text = " 253       0 vda 10 0 16 5 20 0 32 6 3 1500 11 0 0 0 0 0 0\n 7 0 loop0 1\nx\n";
        let disks = parse_disks(text);
        assert_eq!(disks.len(), 1);
        let disk = &disks["vda"];
        assert_eq!((disk.device.as_str(), disk.busy_ms), ("253:0", 1_500));
        assert_eq!((disk.read, disk.written), (8_192, 16_384));
        assert_eq!((disk.completed, disk.in_flight), (30, 3));
        let two = " 0 0 nvme0c0n1 1 0 1 0 0 0 0 0 0 5 5\n 0 0 nvme0c1n1 1 0 1 0 0 0 0 0 0 7 7\n";
        assert_eq!(parse_disks(two).len(), 2);
        let below_zero = " 8 0 sda 1 0 1 0 0 0 0 0 4294967295 5 5\n";
        assert_eq!(parse_disks(below_zero)["sda"].in_flight, 0);
    }

    #[test]
    fn busy_time_wraps_at_32_bits_and_begins_anew_with_a_new_disk() {
        let disk = |busy_ms, completed| DiskTime {
            busy_ms,
            completed,
            ..DiskTime::default()
        };
        let busy = |now: DiskTime, before: DiskTime| now.since(Some(&before), WINDOW).busy;
        let ms = Duration::from_millis;
        assert_eq!(
            busy(disk(1_400, 9), disk(u32::MAX - 2_199, 5)),
            Some(ms(3_600))
        );
        assert_eq!(busy(disk(12, 2), disk(880_000, 90_000)), Some(ms(12)));
        assert_eq!(busy(disk(100_000, 9), disk(5, 5)), None);
    }
}
