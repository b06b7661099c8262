//! The node as a whole: procfs.

use std::{collections::BTreeMap, io};

use anyhow::Context as _;

use super::{CpuReading, DiskReading, InterruptedCpu, NodeReading, Stalls, Waits};
use crate::kernel::{
    machine::{self, CpuTime, CpuTimes, Disks, MemoryEvents},
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
    cpu: CpuTimes,
    /// Softirqs of the CPU that was interrupted most.
    softirqs: Option<(u32, BTreeMap<String, u64>)>,
    events: MemoryEvents,
    disks: Disks,
}

impl Node {
    /// Takes the first look.
    pub(super) fn begin() -> anyhow::Result<Self> {
        let (stalls, irq) = stalls()?;
        Ok(Self {
            netns: netns::own().context("find our own network namespace")?,
            stalls,
            irq,
            cpu: machine::cpu_times()?,
            softirqs: None,
            events: machine::memory_events()?,
            disks: machine::disks().unwrap_or_default(),
        })
    }

    /// What has changed since the last look, and the stalls of it once more, exactly.
    pub(super) fn read(&mut self) -> anyhow::Result<(NodeReading, Stalls)> {
        let mut before = std::mem::replace(self, Self::begin()?);
        let window: Stalls = std::array::from_fn(|i| self.stalls[i].since(before.stalls[i]));
        let sysctls = SYSCTLS.into_iter().filter_map(|key| {
            let value = sysctl::read_number(key).ok().flatten()?;
            Some((key.to_owned(), value))
        });
        let reading = NodeReading {
            total: Waits::new(&self.stalls),
            window: Waits::new(&window),
            irq: self.irq,
            busy_seconds: self.cpu.all.since(before.cpu.all).busy().as_secs_f64(),
            cpu: Some(self.cpu.all.since(before.cpu.all).into()),
            interrupted: self.interrupted(&mut before),
            sleeping: None,
            mounts: Vec::new(),
            events_total: self.events,
            events: self.events.since(before.events),
            memory: machine::memory()?,
            disks: busiest(&self.disks, &before.disks),
            sysctls: sysctls.collect(),
            netns: self.netns,
        };
        Ok((reading, window))
    }
}

impl Node {
    /// The CPU that interrupts took most of, if they took any.
    fn interrupted(&mut self, before: &mut Self) -> Option<InterruptedCpu> {
        let each = self.cpu.each.iter().filter_map(|(cpu, now)| {
            let time = now.since(*before.cpu.each.get(cpu)?);
            Some((*cpu, time))
        });
        let (cpu, time) = each.max_by_key(|(_, time)| time.irq + time.softirq)?;
        if (time.irq + time.softirq).is_zero() {
            return None;
        }
        // Counted from the second window on in which it is this CPU.
        let now = machine::softirqs(cpu).unwrap_or_default();
        let kinds = match before.softirqs.take() {
            Some((of, before)) if of == cpu => most_added(&now, &before),
            Some(_) | None => Vec::new(),
        };
        self.softirqs = Some((cpu, now));
        Some(InterruptedCpu {
            cpu,
            time: time.into(),
            softirqs: kinds,
        })
    }
}

/// The kinds that ran most.
fn most_added(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let added = |(kind, count): (&String, &u64)| {
        let before = before.get(kind).copied().unwrap_or_default();
        (kind.clone(), count.saturating_sub(before))
    };
    let mut kinds: Vec<_> = now.iter().map(added).filter(|(_, new)| *new > 0).collect();
    kinds.sort_by(|(_, a), (_, b)| b.cmp(a));
    kinds.truncate(SOFTIRQS);
    kinds
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

fn busiest(now: &Disks, before: &Disks) -> Vec<DiskReading> {
    let disk = |(device, (name, now)): (&String, &(String, machine::DiskTime))| {
        let (_, before) = before.get(device).cloned().unwrap_or_default();
        DiskReading {
            name: name.clone(),
            device: device.clone(),
            busy_seconds: now.busy.saturating_sub(before.busy).as_secs_f64(),
            read_bytes: now.read.saturating_sub(before.read),
            written_bytes: now.written.saturating_sub(before.written),
        }
    };
    let disks = now.iter().map(disk);
    let mut disks: Vec<_> = disks.filter(|disk| disk.busy_seconds > 0.0).collect();
    disks.sort_by(|a, b| b.busy_seconds.total_cmp(&a.busy_seconds));
    disks.truncate(DISKS);
    disks
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kernel::{machine::DiskTime, pressure::Stall};

    fn disks(busy: &[(&str, u64)]) -> Disks {
        let disk = |(name, milliseconds): &(&str, u64)| {
            let time = DiskTime {
                busy: Duration::from_millis(*milliseconds),
                ..DiskTime::default()
            };
            ((*name).to_owned(), ((*name).to_owned(), time))
        };
        busy.iter().map(disk).collect()
    }

    #[test]
    fn the_busiest_disk_comes_first_and_idle_ones_are_left_out() {
        let before = disks(&[("vda", 100), ("vdb", 50), ("vdc", 7)]);
        let now = disks(&[("vda", 200), ("vdb", 950), ("vdc", 7), ("vdd", 300)]);
        let names: Vec<_> = busiest(&now, &before)
            .into_iter()
            .map(|disk| disk.name)
            .collect();
        assert_eq!(names, ["vdb", "vdd", "vda"]);
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
