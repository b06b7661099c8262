//! Our probes of the IPVS estimator beside bpftrace's on the same hooks.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use nodemedic_tests::bench::figures::{Passes, Program};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::maladies::ipvs::Services;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::{bpftrace, measured};
use crate::agent::SOON;

const AILMENT: &str = "ipvs_estimation";

const SERVICES: u32 = 1_000;

/// Ten rounds of the estimator.
const WATCHED: Duration = Duration::from_secs(20);

/// With what is attached only while passes are slow.
const CONFIG: &str = "[agent]\ninterval = \"1s\"\n[ailments.ipvs_estimation]\nwatch = \"always\"\n";

/// How long each pass takes, as people ask with it.
const DURATIONS: &str = "
kprobe:ip_vs_chain_estimation { @begin[cpu] = nsecs; }
kretprobe:ip_vs_chain_estimation /@begin[cpu]/ {
    @durations = hist((nsecs - @begin[cpu]) / 1000);
    delete(@begin[cpu]);
}";

/// The least that can be asked of what is watched.
const SWITCHES: &str = "tracepoint:sched:sched_switch { @ = count(); }";
const RAISES: &str = "tracepoint:irq:softirq_raise { @ = count(); }";

pub(crate) fn passes_beside_bpftrace(guest: &Guest) -> Result<Verdict> {
    Services::new(SERVICES).add(guest)?;
    guest.set_sysctl("kernel.bpf_stats_enabled", "1")?;
    let mut programs = ours(guest, "fentry", "")?;
    programs.extend(ours(guest, "kprobe", "hooks = [\"kprobe\"]\n")?);
    for (name, script, hooks) in [
        ("bpftrace, kprobe and kretprobe: durations", DURATIONS, 2),
        ("bpftrace, sched_switch: a counter", SWITCHES, 1),
        ("bpftrace, softirq_raise: a counter", RAISES, 1),
    ] {
        let mut bpftrace = bpftrace::start(guest, script, hooks)?;
        sleep(WATCHED);
        programs.push(bpftrace::programs(name, &bpftrace)?);
        bpftrace.stop(SOON)?;
    }
    measured(&Passes {
        services: SERVICES,
        programs,
    })
}

fn ours(guest: &Guest, label: &str, hooks: &str) -> Result<Vec<Program>> {
    let agent = Agent::start(guest, &format!("{CONFIG}{hooks}"))?;
    sleep(WATCHED);
    let programs = eventually(SOON, "passes are counted", || {
        let programs = agent.programs(AILMENT)?;
        let passes = programs
            .iter()
            .filter(|program| program.name.contains("chain"));
        let passes = passes.map(|program| program.runs).max();
        ensure!(passes > Some(0), "{passes:?}");
        Ok(programs)
    })?;
    agent.stop()?;
    let ran = programs.into_iter().filter(|program| program.runs > 0);
    Ok(ran
        .map(|program| Program {
            name: format!("nodemedic, {label}: {}", program.name),
            ..program
        })
        .collect())
}
