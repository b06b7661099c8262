//! `psi_stall`: tasks that really wait, and whether the agent names who waits and for what.

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::maladies::cgroup::{Cgroup, HUNGRY, SPIN};
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use crate::agent::{Agent, SOON};

const AILMENT: &str = "psi_stall";
const SECONDS: &str = "nodemedic_psi_stall_seconds_total";
const MEMORY_EVENTS: &str = "nodemedic_psi_stall_memory_events_total";

/// An agent whose first reading, in which it waits for itself, is over.
fn start(guest: &Guest) -> Result<Agent> {
    let agent = Agent::start_for(guest, AILMENT, "")?;
    healthy(&agent)?;
    Ok(agent)
}

/// Nothing is found, for three readings in a row.
fn healthy(agent: &Agent) -> Result<()> {
    let mut seen = Vec::new();
    eventually(2 * SOON, "three readings without a finding", || {
        let report = agent.report()?;
        ensure!(!report["reading"].is_null(), "there is no reading");
        let at = report["reading_unix_seconds"].clone();
        let found = report["findings"].as_array().map_or(0, Vec::len);
        if found > 0 {
            seen.clear();
        } else if !seen.contains(&at) {
            seen.push(at);
        }
        ensure!(seen.len() >= 3, "{report}");
        Ok(())
    })
}

/// Who is the first among the parties of a finding.
fn first<'f>(finding: &'f Value, parties: &str) -> Result<&'f str> {
    let who = finding[parties][0]["who"].as_str();
    who.with_context(|| format!("it has no {parties}: {finding}"))
}

fn names(finding: &Value, parties: &str, wanted: &str) -> Result<()> {
    let who = first(finding, parties)?;
    ensure!(
        who.contains(wanted),
        "the first of the {parties} is {who}, not {wanted}: {finding}"
    );
    Ok(())
}

/// Waits until a finding of this kind names these.
fn found(agent: &Agent, kind: &str, victim: &str, culprit: &str) -> Result<Value> {
    eventually(
        2 * SOON,
        &format!("{kind} of {victim} by {culprit}"),
        || {
            let finding = agent.finds_one(kind, SOON)?;
            names(&finding, "victims", victim)?;
            names(&finding, "culprits", culprit)?;
            Ok(finding)
        },
    )
}

fn advises(finding: &Value, wanted: &str) -> Result<()> {
    let remedies = finding["remedies"].to_string();
    ensure!(remedies.contains(wanted), "the remedies are {remedies}");
    Ok(())
}

pub(crate) fn an_idle_node_is_healthy(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let coverage = agent.report()?["coverage"].clone();
    ensure!(coverage["state"] == "full", "{coverage}");
    agent.shows("the node's own waits", SOON, |metrics| {
        for resource in ["cpu", "memory", "io"] {
            metrics.value(
                SECONDS,
                &[("resource", resource), ("kind", "some"), ("scope", "node")],
            )?;
        }
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

pub(crate) fn a_memory_limit_is_named_with_who_waits_for_it(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    // What a limit brings about must not look as if the node were short of memory.
    let of_node = || {
        let metrics = agent.metrics()?;
        metrics.value(MEMORY_EVENTS, &[("event", "allocstall")])
    };
    let before = of_node()?;
    let limited = Cgroup::create("/limited")?;
    limited.set("memory.high", "16777216")?;
    let task = Cgroup::create("/limited/task")?;
    let hungry = task.start(guest, "hungry", HUNGRY)?;
    let finding = found(
        &agent,
        "memory_limit",
        "cgroup /limited/task",
        "memory.high of cgroup /limited",
    )?;
    advises(&finding, "no sysctl helps")?;
    let after = of_node()?;
    ensure!(after == before, "allocstall was {before}, is {after}");
    drop(hungry);
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

pub(crate) fn a_quota_is_told_from_a_busy_cpu(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let quota = Cgroup::create("/quota")?;
    quota.set("cpu.max", "20000 100000")?;
    let task = Cgroup::create("/quota/task")?;
    let spinning = task.start(guest, "throttled", SPIN)?;
    let finding = found(
        &agent,
        "cpu_throttled",
        "cgroup /quota",
        "cpu.max of cgroup /quota",
    )?;
    advises(&finding, "no sysctl helps: this is a CPU quota")?;
    let contention = agent.finds(&["cpu_throttled"], SOON)?;
    ensure!(contention["verdict"] != "healthy", "{contention}");
    drop(spinning);
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

pub(crate) fn a_neighbour_that_takes_the_cpu_is_the_culprit(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let meek = Cgroup::create("/meek")?;
    meek.set("cpu.weight", "5")?;
    let loud = Cgroup::create("/loud")?;
    let _meek = meek.start(guest, "meek", SPIN)?;
    let neighbour = loud.start(guest, "loud", SPIN)?;
    let finding = found(&agent, "cpu_contention", "cgroup /meek", "cgroup /loud")?;
    advises(&finding, "cpu.weight")?;
    drop(neighbour);
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

/// The disk is a file of zeros, read at a megabyte a second.
pub(crate) fn a_limit_on_a_disk_is_named_with_who_waits_for_it(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    guest.modprobe("loop")?;
    guest.sh("truncate -s 4G /tmp/disk && losetup /dev/loop0 /tmp/disk")?;
    let slow = Cgroup::create("/slow")?;
    slow.set("io.max", "7:0 rbps=1048576")?;
    let read = "dd if=/dev/loop0 of=/dev/null bs=64k";
    let reader = slow.start(guest, "reader", &format!("exec {read}"))?;
    let finding = found(&agent, "io_stall", "cgroup /slow", "io.max of cgroup /slow")?;
    advises(&finding, "no sysctl helps")?;
    drop(reader);
    healthy(&agent)?;
    guest.sh("losetup -d /dev/loop0")?;
    Ok(Verdict::Passed)
}

/// A few hundred milliseconds, between two readings or across one.
pub(crate) fn a_short_stall_is_counted(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let brief = Cgroup::create("/brief")?;
    let twice = format!("timeout 0.5 sh -c '{SPIN}' & timeout 0.5 sh -c '{SPIN}'; wait");
    let _brief = brief.start(guest, "brief", &twice)?;
    agent.shows("the short stall", SOON, |metrics| {
        let labels = [("resource", "cpu"), ("kind", "some"), ("scope", "/brief")];
        let seconds = metrics.value(SECONDS, &labels)?;
        ensure!(seconds > 0.1, "tasks waited for {seconds} s");
        Ok(())
    })?;
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

/// The next reading would come in an hour.
pub(crate) fn the_kernel_calls_when_tasks_wait(guest: &Guest) -> Result<Verdict> {
    let agent = Agent::start_idle(guest, AILMENT)?;
    eventually(2 * SOON, "the first reading", || {
        ensure!(!agent.report()?["reading"].is_null(), "there is none");
        Ok(())
    })?;
    let meek = Cgroup::create("/meek")?;
    meek.set("cpu.weight", "5")?;
    let loud = Cgroup::create("/loud")?;
    let _meek = meek.start(guest, "meek", SPIN)?;
    let _loud = loud.start(guest, "loud", SPIN)?;
    found(&agent, "cpu_contention", "cgroup /meek", "cgroup /loud")?;
    agent.shows("that the kernel has called", SOON, |metrics| {
        let calls = metrics.value("nodemedic_psi_stall_calls_total", &[("resource", "cpu")])?;
        let armed = metrics.value("nodemedic_psi_stall_armed", &[])?;
        ensure!(calls > 0.0 && armed == 1.0, "{calls} calls, armed: {armed}");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}
