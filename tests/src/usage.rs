//! What a process takes, as the kernel tells in /proc.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::bench::figures::Memory;

/// Ticks of a second in /proc, whatever the kernel's own clock does.
const USER_HZ: f64 = 100.0;

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

/// CPU time by wall time while something is done.
pub fn cpu_share(pid: u32, f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (begin, before) = (Instant::now(), cpu(pid)?);
    f()?;
    let used = cpu(pid)?.saturating_sub(before);
    Ok(used.as_secs_f64() / begin.elapsed().as_secs_f64())
}

/// CPU time of all its threads, in the kernel and outside.
pub fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = ticks(&stat).with_context(|| format!("{path}: {stat}"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / USER_HZ))
}

/// Fields 14 and 15, utime and stime (proc_pid_stat(5)). The name in field 2 may hold anything, so
/// fields are counted behind its closing bracket.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 21 13 0 0 20 0 2 0 300 1 2";
        assert_eq!(ticks(stat), Some(34));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

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
