//! What the agent takes of the machine, as it comes.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::bench::figures::Footprint;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::dns::{CLIENT, Site};
use nodemedic_tests::faults::dnsperf::Load;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use nodemedic_tests::usage;

use super::agent::Agent;
use super::{enlarge_table, measured};
use crate::agent::SOON;

const WATCHED: Duration = Duration::from_secs(60);

const PER_SECOND: u32 = 100;
const LOAD_SECONDS: u32 = 30;

pub(crate) fn memory_and_cpu(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    enlarge_table(guest, 65_536)?;
    guest.modprobe("nf_conntrack_netlink")?;
    let agent = Agent::start(guest, "")?;
    let pid = agent.id();
    eventually(SOON, "a first reading", || {
        let report = agent.report()?;
        report["reading"].as_object().context("none").map(drop)
    })?;
    let attached = usage::memory(pid)?;
    let idle_cpu = usage::cpu_share(pid, || {
        sleep(WATCHED);
        Ok(())
    })?;
    let loaded_cpu = usage::cpu_share(pid, || storm(guest, &site))?;
    measured(&Footprint {
        attached,
        loaded: usage::memory(pid)?,
        map_bytes: map_bytes(pid)?,
        idle_cpu,
        loaded_cpu,
        load_per_second: PER_SECOND,
    })
}

fn storm(guest: &Guest, site: &Site) -> Result<()> {
    let load = Load {
        source: CLIENT,
        queries: PER_SECOND * LOAD_SECONDS,
        per_second: Some(PER_SECOND),
    };
    site.dnsperf(guest, load).map(drop)
}

/// The sum of what the kernel says of each map (`bpf_map_show_fdinfo` in kernel/bpf/syscall.c).
fn map_bytes(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut sum = 0;
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        // It may have been closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        if info.contains("map_type:") {
            let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
            let bytes: u64 = line.context("a map without its size")?.trim().parse()?;
            sum += bytes;
        }
    }
    Ok(sum)
}
