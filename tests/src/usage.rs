//! What a process takes, as the kernel tells.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::bench::figures::Memory;

/// Its memory now, and at its peak.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    memory_of(&status).with_context(|| path)
}

fn memory_of(status: &str) -> Result<Memory> {
    Ok(Memory {
        resident: kib(status, "VmRSS:")?,
        anonymous: kib(status, "RssAnon:")?,
        peak: kib(status, "VmHWM:")?,
    })
}

/// `VmRSS:\t    1234 kB`, in bytes.
fn kib(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.with_context(|| format!("no {name}"))?;
    let number = words.split_whitespace().next().unwrap_or_default();
    let number: u64 = number.parse().with_context(|| format!("{name}{words}"))?;
    Ok(number * 1024)
}

/// Its open file descriptors.
pub fn descriptors(pid: u32) -> Result<u64> {
    entries(&format!("/proc/{pid}/fd"))
}

/// Its threads.
pub fn threads(pid: u32) -> Result<u64> {
    entries(&format!("/proc/{pid}/task"))
}

fn entries(folder: &str) -> Result<u64> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {folder}"))?;
    Ok(entries.count() as u64)
}

/// CPU time by wall time while something is done.
pub fn cpu_share(pid: u32, f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (begin, before) = (Instant::now(), cpu(pid)?);
    f()?;
    let used = cpu(pid)?.saturating_sub(before);
    Ok(used.as_secs_f64() / begin.elapsed().as_secs_f64())
}

/// CPU time of all its threads, of those that have ended, too. The clock is the one that
/// /proc/PID/stat tells in hundredths of a second.
pub fn cpu(pid: u32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed()));
    let now = clock.and_then(ClockId::now);
    now.map(Duration::from)
        .with_context(|| format!("read the CPU clock of process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "VmHWM:\t    20 kB\nVmRSS:\t    10 kB\nRssAnon:\t     4 kB\n";
        let memory = Memory {
            resident: 10 << 10,
            anonymous: 4 << 10,
            peak: 20 << 10,
        };
        assert_eq!(memory_of(status).unwrap(), memory);
        assert!(memory_of("VmRSS:\t1 kB\n").is_err());
    }

    #[test]
    fn a_busy_process_uses_cpu_time() {
        let share = cpu_share(std::process::id(), || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(200) {}
            Ok(())
        });
        assert!(share.unwrap() > 0.0);
    }
}
