//! What the probes add: by which path of the kernel tasks wait, and the command of who does.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::cgroup::{Cgroup, HUNGRY, SPIN};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::{found, healthy, start};
use crate::agent::{Agent, SOON};

const TASK_SECONDS: &str = "nodemedic_psi_stall_task_seconds_total";
const CAUSE_SECONDS: &str = "nodemedic_psi_stall_cause_seconds_total";

/// How far the two clocks of one wait may lie apart: the kernel's begins and ends a few
/// instructions inside of the probes', which an emulated CPU takes long for.
const AGREES: f64 = 0.05;

fn waited(agent: &Agent, cgroup: &str) -> Result<f64> {
    let labels = [("resource", "memory"), ("cgroup", cgroup)];
    agent.metrics()?.value(TASK_SECONDS, &labels)
}

/// One task, in a cgroup that may not have what it wants: whenever it waits, the cgroup does.
pub(crate) fn waits_for_memory_agree_with_the_kernels_count(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let limited = Cgroup::create("/limited")?;
    limited.set("memory.high", "16777216")?;
    let hungry = limited.start(guest, "hungry", HUNGRY)?;
    eventually(2 * SOON, "the cause and the command are told", || {
        let finding = found(
            &agent,
            "memory_limit",
            "cgroup /limited",
            "memory.high of cgroup /limited",
        )?;
        let victims = finding["victims"].to_string();
        ensure!(
            victims.contains("dd reclaimed"),
            "the victims are {victims}"
        );
        let evidence = finding["evidence"].to_string();
        ensure!(
            evidence.contains("cgroup_reclaim"),
            "the evidence is {evidence}"
        );
        Ok(())
    })?;
    drop(hungry);
    // What the shell has started ends by itself, once it may.
    limited.set("memory.high", "max")?;
    limited.empties()?;
    let by_kernel = limited.waited_for("memory")?.as_secs_f64();
    ensure!(by_kernel > 0.3, "the task waited for {by_kernel} s");
    eventually(SOON, "the sum of the waits is that of the kernel", || {
        let counted = waited(&agent, "/limited")?;
        let apart = (counted - by_kernel).abs() / by_kernel;
        ensure!(
            apart < AGREES,
            "{counted} s are counted, by the kernel it is {by_kernel} s"
        );
        Ok(())
    })?;
    let metrics = agent.metrics()?;
    let of = |cause| metrics.value(CAUSE_SECONDS, &[("resource", "memory"), ("cause", cause)]);
    let by_limit = of("cgroup_reclaim")?;
    ensure!(
        by_limit > (1.0 - AGREES) * by_kernel,
        "{by_limit} s of {by_kernel} s are the limit's: {:?}",
        agent.report()?["reading"]["probed"]
    );
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

const WATCHES: &str = "nodemedic_psi_stall_tracings_total";
const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// How often the scheduler's tracepoint has run its program, by the kernel's own count.
fn switches_seen(agent: &Agent) -> Result<u64> {
    let report = agent.report()?;
    let programs = report["programs"].as_array().into_iter().flatten();
    let mut named = programs.filter(|it| it["name"] == "task_switched");
    let program = named
        .next()
        .with_context(|| format!("no such program: {report}"))?;
    program["runs"].as_u64().context("it has no count of runs")
}

/// The tracepoints are attached while tasks wait for a CPU, and not before or after.
pub(crate) fn the_scheduler_is_watched_only_while_tasks_wait(guest: &Guest) -> Result<Verdict> {
    fs::write(BPF_STATS, "1").context("have the kernel count runs of BPF programs")?;
    let agent = Agent::start_for(guest, super::AILMENT, "trace_duration = \"2s\"")?;
    let before = unwatched(&agent)?;
    let meek = Cgroup::create("/meek")?;
    meek.set("cpu.weight", "5")?;
    let loud = Cgroup::create("/loud")?;
    let victim = meek.start(guest, "meek", SPIN)?;
    let neighbour = loud.start(guest, "loud", SPIN)?;
    eventually(4 * SOON, "the commands that wait and run are told", || {
        let finding = found(&agent, "cpu_contention", "cgroup /meek", "cgroup /loud")?;
        let (victims, culprits) = (&finding["victims"], &finding["culprits"]);
        ensure!(
            victims[0]["share"]
                .to_string()
                .contains("sh waited for a CPU that other tasks used"),
            "the victims are {victims}"
        );
        ensure!(
            culprits[0]["share"].to_string().contains("by command"),
            "the culprits are {culprits}"
        );
        Ok(())
    })?;
    let metrics = agent.metrics()?;
    let labels = [("resource", "cpu"), ("cause", "run_queue")];
    let waited = metrics.value(CAUSE_SECONDS, &labels)?;
    ensure!(waited > 0.3, "tasks waited for {waited} s in the queue");
    let watched = metrics.value("nodemedic_psi_stall_tracing_seconds_total", &[])?;
    ensure!(waited < 3.0 * watched + 1.0, "{waited} s in {watched} s");
    drop((victim, neighbour));
    let after = unwatched(&agent)?;
    ensure!(after > before, "{before} switches were seen, then {after}");
    fs::write(BPF_STATS, "0").context("have the kernel count no runs any more")?;
    Ok(Verdict::Passed)
}

/// Waits until three readings without a finding have passed, and no watch: a CPU of the host that is
/// taken away makes tasks wait, now and then, as does the agent when it starts. How many switches were
/// seen so far.
fn unwatched(agent: &Agent) -> Result<u64> {
    let look = || -> Result<_> {
        let watches = agent.metrics()?.value(WATCHES, &[])?;
        Ok((watches, switches_seen(agent)?))
    };
    eventually(
        4 * SOON,
        "nothing is watched while nothing is wrong",
        || {
            let on = agent
                .metrics()?
                .value("nodemedic_psi_stall_tracing_active", &[])?;
            ensure!(on == 0.0, "watching is {on}");
            let before = look()?;
            healthy(agent)?;
            let after = look()?;
            ensure!(before == after, "{before:?}, then {after:?}");
            Ok(after.1)
        },
    )
}
