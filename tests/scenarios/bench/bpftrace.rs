//! bpftrace, as what others would attach.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::bench::figures::Program;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};

/// Under emulation it takes its time to read the kernel's symbols.
const STARTS: Duration = Duration::from_secs(120);

/// Room for all entries of a round; it has 4,096 by itself.
const KEYS: (&str, &str) = ("BPFTRACE_MAP_KEYS_MAX", "65536");

/// Started, and attached to as many hooks as the script has: each is a program.
pub(super) fn start(guest: &Guest, script: &str, hooks: usize) -> Result<Process> {
    let mut command = Command::new("bpftrace");
    command.env(KEYS.0, KEYS.1).args(["-e", script]);
    let bpftrace = guest.start("bpftrace", &mut command)?;
    eventually(STARTS, "the programs of bpftrace", || {
        let attached = guest.sh(&format!("ls -l /proc/{}/fd", bpftrace.id()))?;
        let attached = attached.matches("perf_event").count();
        ensure!(
            attached >= hooks,
            "{attached} are attached; it says {}",
            bpftrace.log()
        );
        Ok(())
    })?;
    Ok(bpftrace)
}

/// What all its programs took together, by as many runs as the busiest of them had, as the kernel
/// counts it (`bpf_prog_show_fdinfo` in kernel/bpf/syscall.c).
pub(super) fn programs(name: &str, bpftrace: &Process) -> Result<Program> {
    let folder = format!("/proc/{}/fdinfo", bpftrace.id());
    let (mut runs, mut nanoseconds) = (0, 0);
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        // It may have been closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if let (Some(time), Some(count)) = (field("run_time_ns:"), field("run_cnt:")) {
            runs = runs.max(count);
            nanoseconds += time;
        }
    }
    ensure!(runs > 0, "none of its programs ran: {}", bpftrace.log());
    Ok(Program {
        name: name.to_owned(),
        runs,
        nanoseconds,
    })
}
