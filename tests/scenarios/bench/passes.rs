//! Our probes of the IPVS estimator beside bpftrace's on the same hooks.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nodemedic_tests::bench::figures::{Passes, Program};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::Services;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::agent::{Agent, that_ran};
use super::{bpftrace, measured};
use crate::agent::SOON;

const AILMENT: &str = "ipvs_estimation";

const SERVICES: u32 = 1_000;

/// Ten rounds of the estimator.
const WATCHED: Duration = Duration::from_secs(20);

/// With what is attached only while passes are slow.
const CONFIG: &str =
    "[agent]\ninterval = \"1s\"\n[ailments.ipvs_estimation]\ntrace_when = \"always\"\n";

/// What a pass is: up to 6.1, and from 6.2 on.
const PASSES: [&str; 2] = ["estimation_timer", "ip_vs_chain_estimation"];

/// The least that can be asked of what is watched.
const SWITCHES: &str = "tracepoint:sched:sched_switch { @ = count(); }";
const RAISES: &str = "tracepoint:irq:softirq_raise { @ = count(); }";

pub(crate) fn passes_beside_bpftrace(guest: &Guest) -> Result<Verdict> {
    Services::new(SERVICES).add(guest)?;
    guest.set_sysctl("kernel.bpf_stats_enabled", "1")?;
    let pass = pass(guest)?;
    let mut programs = ours(guest, "fentry", "")?;
    programs.extend(ours(
        guest,
        "kprobe",
        "hooks = [\"kprobe\", \"raw_tracepoint\"]\n",
    )?);
    for (name, script, hooks) in [
        (
            "bpftrace, kprobe and kretprobe: durations",
            &*durations(pass),
            2,
        ),
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
        function: pass.to_owned(),
        programs,
    })
}

fn pass(guest: &Guest) -> Result<&'static str> {
    for pass in PASSES {
        if guest.has_symbol(pass)? {
            return Ok(pass);
        }
    }
    bail!("this kernel has none of {PASSES:?}")
}

/// How long each pass takes, as people ask with it.
fn durations(pass: &str) -> String {
    format!(
        "kprobe:{pass} {{ @begin[cpu] = nsecs; }}
        kretprobe:{pass} /@begin[cpu]/ {{
            @durations = hist((nsecs - @begin[cpu]) / 1000);
            delete(@begin[cpu]);
        }}"
    )
}

fn ours(guest: &Guest, label: &str, hooks: &str) -> Result<Vec<Program>> {
    let agent = Agent::start(guest, &format!("{CONFIG}{hooks}"))?;
    sleep(WATCHED);
    let programs = eventually(SOON, "passes are counted", || {
        let programs = agent.programs(AILMENT)?;
        let of_passes = programs.iter().filter(|program| {
            let name = &program.name;
            name.starts_with("timer") || name.starts_with("chain")
        });
        let passes = of_passes.map(|program| program.runs).max();
        ensure!(passes > Some(0), "{passes:?}");
        Ok(programs)
    })?;
    agent.stop()?;
    Ok(that_ran(programs, &format!("nodemedic, {label}")))
}
