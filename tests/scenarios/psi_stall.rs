//! `psi_stall`: tasks that really wait, and whether the agent names who waits and for what.

pub(crate) mod causes;
pub(crate) mod cgroups;
pub(crate) mod probed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::cgroup::{Cgroup, HUNGRY, QuotaV1, SPIN};
use nodemedic_tests::faults::fuse::{self, HungDaemon};
use nodemedic_tests::faults::{self, disk};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use self::causes::Causes;
use crate::agent::{Agent, SOON, check};

const AILMENT: &str = "psi_stall";
pub(crate) const SECONDS: &str = "nodemedic_psi_stall_seconds_total";
const MEMORY_EVENTS: &str = "nodemedic_psi_stall_memory_events_total";

/// An agent whose first reading, in which it waits for itself, is over.
fn start(guest: &Guest) -> Result<Agent> {
    start_with(guest, "")
}

fn start_with(guest: &Guest, settings: &str) -> Result<Agent> {
    let agent = Agent::start_for(guest, AILMENT, settings)?;
    healthy(&agent)?;
    Ok(agent)
}

/// What it may have watched as it started itself does not keep it from watching again.
const WATCHFUL: &str = "trace_cooldown = \"1s\"";

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

/// By all ailments.
pub(crate) fn an_idle_node_is_healthy(guest: &Guest) -> Result<Verdict> {
    let agent = Agent::start_whole(guest, AILMENT, "")?;
    healthy(&agent)?;
    let node = agent.node()?;
    for ailment in node["ailments"].as_array().context("ailments")? {
        let found = ailment["findings"].as_array().context("findings")?;
        ensure!(found.is_empty(), "{ailment}");
    }
    let coverage = agent.report()?["coverage"].clone();
    ensure!(coverage["state"] == "full", "{coverage}");
    agent.shows("the node's own waits", SOON, |metrics| {
        for resource in ["cpu", "memory", "io"] {
            metrics.value(
                SECONDS,
                &[
                    ("resource", resource),
                    ("stall", "some"),
                    ("cgroup", "node"),
                ],
            )?;
        }
        metrics.value("nodemedic_psi_stall_memstall_seconds_count", &[])?;
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
    // What the shell has started ends by itself, once it may.
    limited.set("memory.high", "max")?;
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

pub(crate) fn a_quota_is_told_from_a_busy_cpu(guest: &Guest) -> Result<Verdict> {
    let agent = start_with(guest, WATCHFUL)?;
    let causes = Causes::since_now(&agent)?;
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
    causes.rises("cpu", "throttled", &["iowait"])?;
    causes.is_of("throttled", "/quota/task")?;
    drop(spinning);
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

/// The tasks are in the root of version 2, so that the quota of version 1 alone tells.
pub(crate) fn a_quota_of_version_1_is_named(guest: &Guest) -> Result<Verdict> {
    let quota = QuotaV1::create("pod1", 20_000)?;
    let agent = start(guest)?;
    let spinning = quota.start(guest, "throttled", SPIN)?;
    let finding = found(
        &agent,
        "cpu_throttled",
        "cgroup /pod1",
        "cpu.cfs_quota_us of cgroup /pod1",
    )?;
    advises(
        &finding,
        "cpu.cfs_quota_us in /pod1 of the tree of version 1",
    )?;
    ensure!(
        finding["summary"].to_string().contains("0.20 CPUs"),
        "{finding}"
    );
    drop(spinning);
    healthy(&agent)?;
    drop(quota);
    Ok(Verdict::Passed)
}

pub(crate) fn a_neighbour_that_takes_the_cpu_is_the_culprit(guest: &Guest) -> Result<Verdict> {
    let agent = start_with(guest, WATCHFUL)?;
    let causes = Causes::since_now(&agent)?;
    let meek = Cgroup::create("/meek")?;
    meek.set("cpu.weight", "5")?;
    let loud = Cgroup::create("/loud")?;
    let both = [
        meek.start(guest, "meek", SPIN)?,
        loud.start(guest, "loud", SPIN)?,
    ];
    let finding = found(&agent, "cpu_contention", "cgroup /meek", "cgroup /loud")?;
    advises(&finding, "cpu.weight")?;
    causes.rises("cpu", "run_queue", &["throttled", "iowait"])?;
    causes.is_of("run_queue", "/meek")?;
    drop(both);
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

/// The disk is a file of zeros, read at a megabyte a second.
pub(crate) fn a_limit_on_a_disk_is_named_with_who_waits_for_it(guest: &Guest) -> Result<Verdict> {
    let agent = start_with(guest, WATCHFUL)?;
    let causes = Causes::since_now(&agent)?;
    guest.modprobe("loop")?;
    guest.sh("truncate -s 4G /tmp/disk && losetup /dev/loop0 /tmp/disk")?;
    let slow = Cgroup::create("/slow")?;
    slow.set("io.max", "7:0 rbps=1048576")?;
    let read = "dd if=/dev/loop0 of=/dev/null bs=64k";
    let reader = slow.start(guest, "reader", &format!("exec {read}"))?;
    let finding = found(&agent, "io_stall", "cgroup /slow", "io.max of cgroup /slow")?;
    advises(&finding, "no sysctl helps")?;
    causes.rises("io", "iowait", &["throttled", "cgroup_reclaim"])?;
    causes.is_of("iowait", "/slow")?;
    drop(reader);
    healthy(&agent)?;
    guest.sh("losetup -d /dev/loop0")?;
    Ok(Verdict::Passed)
}

/// One writes more than the disk can take, another wants a few bytes to be safe on it.
pub(crate) fn a_dirtier_of_a_slow_disk_is_named_with_who_waits(guest: &Guest) -> Result<Verdict> {
    disk::mount(guest)?;
    let agent = start(guest)?;
    let (dirtier, meek) = (Cgroup::create("/dirtier")?, Cgroup::create("/meek")?);
    let writing = dirtier.start(guest, "dirtier", &disk::dirty())?;
    let waiting = meek.start(guest, "meek", &disk::sync())?;
    let finding = eventually(2 * SOON, "both are named", || {
        let finding = agent.finds_one("io_stall", SOON)?;
        names(&finding, "culprits", "cgroup /dirtier")?;
        let victims = finding["victims"].to_string();
        ensure!(victims.contains("cgroup /meek"), "{finding}");
        Ok(finding)
    })?;
    let summary = finding["summary"].to_string();
    ensure!(summary.contains(disk::NAME), "{summary}");
    drop((writing, waiting));
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

/// Its makers did not have this agent in mind.
pub(crate) fn what_stress_ng_does_is_told_apart(guest: &Guest) -> Result<Verdict> {
    disk::mount(guest)?;
    let agent = start(guest)?;
    let stress = |cgroup: &Cgroup, what: &str| {
        let script = format!("exec stress-ng --temp-path {} {what}", disk::FOLDER);
        cgroup.start(guest, "stress-ng", &script)
    };

    let (meek, loud) = (Cgroup::create("/meek")?, Cgroup::create("/loud")?);
    meek.set("cpu.weight", "5")?;
    let waiting = meek.start(guest, "meek", SPIN)?;
    let running = stress(&loud, "--cpu 1")?;
    found(&agent, "cpu_contention", "cgroup /meek", "cgroup /loud")?;
    drop((waiting, running));
    healthy(&agent)?;

    let limited = Cgroup::create("/limited")?;
    limited.set("memory.high", "33554432")?;
    let hungry = stress(&limited, "--vm 1 --vm-bytes 64M")?;
    let high = "memory.high of cgroup /limited";
    found(&agent, "memory_limit", "cgroup /limited", high)?;
    drop(hungry);
    healthy(&agent)?;

    let writer = Cgroup::create("/writer")?;
    let writing = stress(
        &writer,
        "--hdd 1 --hdd-bytes 16M --hdd-write-size 1M --hdd-opts fsync",
    )?;
    found(&agent, "io_stall", "cgroup /writer", "cgroup /writer")?;
    drop(writing);
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

/// Whoever owns the node has decided so: the agent says what that costs, and is no less well.
pub(crate) fn psi_that_is_off_is_told_with_its_remedy(guest: &Guest) -> Result<Verdict> {
    let agent = Agent::start_whole(guest, AILMENT, "")?;
    let node = agent.node()?;
    for ailment in node["ailments"].as_array().context("ailments")? {
        let name = ailment["name"].as_str().context("a name")?;
        let wanted = if name == AILMENT {
            "unsupported"
        } else {
            "waiting"
        };
        ensure!(ailment["coverage"]["state"] == wanted, "{name}: {ailment}");
    }
    let probes = agent.report()?["probes"].to_string();
    ensure!(probes.contains("psi=1"), "{probes}");
    agent.shows("that it is unsupported, and no fault", SOON, |metrics| {
        let coverage = |coverage| {
            let labels = [("ailment", AILMENT), ("coverage", coverage)];
            metrics.value("nodemedic_ailment_coverage", &labels)
        };
        let (unsupported, failed) = (coverage("unsupported")?, coverage("failed")?);
        ensure!(
            (unsupported, failed) == (1.0, 0.0),
            "unsupported: {unsupported}, failed: {failed}"
        );
        for stage in ["attach", "measure"] {
            let labels = [("ailment", AILMENT), ("stage", stage)];
            let errors = metrics.value("nodemedic_ailment_errors_total", &labels)?;
            ensure!(errors == 0.0, "{stage}: {errors} errors");
        }
        Ok(())
    })?;
    let checked = check(guest, &[AILMENT])?;
    ensure!(
        checked.status.code() == Some(2) && checked.stdout.contains("psi=1"),
        "{}: {}",
        checked.status,
        checked.stdout
    );
    Ok(Verdict::Passed)
}

/// A few hundred milliseconds, between two readings or across one.
pub(crate) fn a_short_stall_is_counted(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let brief = Cgroup::create("/brief")?;
    let twice = format!("timeout 0.5 sh -c '{SPIN}' & timeout 0.5 sh -c '{SPIN}'; wait");
    let _brief = brief.start(guest, "brief", &twice)?;
    agent.shows("the short stall", SOON, |metrics| {
        let labels = [("resource", "cpu"), ("stall", "some"), ("cgroup", "/brief")];
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
        let calls = metrics.value(
            "nodemedic_psi_stall_trigger_events_total",
            &[("resource", "cpu")],
        )?;
        let armed = metrics.value("nodemedic_psi_stall_triggers_active", &[])?;
        ensure!(calls > 0.0 && armed == 1.0, "{calls} calls, armed: {armed}");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// Of two CPUs one has work and nobody who waits for it, so what waits for the other is half of the
/// node's time, and all of its own cgroup's.
pub(crate) fn what_is_little_of_a_node_calls_by_its_cgroup(guest: &Guest) -> Result<Verdict> {
    // What the agent and this process do on their own must wake nobody: they share a CPU with those
    // who wait anyway, and so do the children of both.
    let mut first = CpuSet::new();
    first.set(0);
    sched_setaffinity(None, &first).context("stay on CPU 0")?;
    let on_cpu = |cpu| format!("exec taskset -c {cpu} sh -c '{SPIN}'");
    let (meek, loud) = (Cgroup::create("/meek")?, Cgroup::create("/loud")?);
    let busy = Cgroup::create("/busy")?;
    meek.set("cpu.weight", "1")?;
    let calls = |agent: &Agent| {
        let metrics = agent.metrics()?;
        metrics.value(
            "nodemedic_psi_stall_trigger_events_total",
            &[("resource", "cpu")],
        )
    };
    let settings = "cpu_ratio = 0.8";
    let by_node = format!("{settings}\ntrigger_cgroups = 0");
    // While it attaches, it is one that waits itself, and may call for that.
    let agent = start_with(guest, &by_node)?;
    let before = calls(&agent)?;
    let _work = [
        busy.start(guest, "busy", &on_cpu(1))?,
        loud.start(guest, "loud", &on_cpu(0))?,
        meek.start(guest, "meek", &on_cpu(0))?,
    ];
    found(&agent, "cpu_contention", "cgroup /meek", "cgroup /")?;
    let by_node = calls(&agent)? - before;
    ensure!(by_node == 0.0, "the node has called {by_node} times");
    drop(agent);

    let agent = Agent::start_for(guest, AILMENT, settings)?;
    found(&agent, "cpu_contention", "cgroup /meek", "cgroup /")?;
    eventually(SOON, "the cgroup calls", || {
        let by_cgroup = calls(&agent)?;
        ensure!(by_cgroup > 0.0, "nobody has called");
        let armed = agent
            .metrics()?
            .value("nodemedic_psi_stall_cgroup_triggers_active", &[])?;
        ensure!(armed > 0.0, "no cgroup is armed");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// The daemon answers no read. The only disk idles.
pub(crate) fn a_file_system_whose_daemon_hangs_is_named(guest: &Guest) -> Result<Verdict> {
    // The kernel would report what hangs on purpose.
    guest.set_sysctl("kernel.hung_task_timeout_secs", "0")?;
    let agent = start(guest)?;
    let daemon = HungDaemon::mount(guest)?;
    let reader = Cgroup::create("/reader")?;
    let reading = reader.start(guest, "reader", &format!("exec cat {}", fuse::FILE))?;
    let finding = found(&agent, "io_stall", "cgroup /reader", fuse::SOURCE)?;
    names(&finding, "culprits", fuse::FOLDER)?;
    let summary = finding["summary"].to_string();
    ensure!(summary.contains("1 task sleeps in /tmp/hung"), "{summary}");
    drop(daemon);
    drop(reading);
    healthy(&agent)?;
    Ok(Verdict::Passed)
}

/// The kernel counts it as a wait for I/O, and it slows nobody.
pub(crate) fn an_idle_io_uring_is_a_note(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let server = Cgroup::create("/server")?;
    let waiting = faults::wait_for_io_uring(guest, &server)?;
    eventually(SOON, "a note on io_uring", || {
        let report = agent.report()?;
        let notes = report["notes"].to_string();
        ensure!(notes.contains("io_uring"), "{report}");
        Ok(())
    })?;
    healthy(&agent)?;
    drop(waiting);
    Ok(Verdict::Passed)
}

/// They come and go while the tree is scanned: no reading fails, and who waits is found among them.
pub(crate) fn a_storm_of_cgroups_stops_nothing(guest: &Guest) -> Result<Verdict> {
    let agent = start(guest)?;
    let storm = Cgroup::create("/storm")?;
    let (meek, loud) = (Cgroup::create("/meek")?, Cgroup::create("/loud")?);
    meek.set("cpu.weight", "5")?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let storm = scope.spawn(|| storm.come_and_go(1_000, &over));
        let work = [
            meek.start(guest, "meek", SPIN)?,
            loud.start(guest, "loud", SPIN)?,
        ];
        // Who makes and removes cgroups takes most of the CPU, where that is slow.
        let met = eventually(2 * SOON, "who waits is named", || {
            let finding = agent.finds_one("cpu_contention", SOON)?;
            names(&finding, "victims", "cgroup /meek")
        });
        drop(work);
        over.store(true, Ordering::Relaxed);
        storm
            .join()
            .map_err(|_| anyhow!("the storm has panicked"))??;
        met
    })?;
    healthy(&agent)?;
    let errors = agent.report()?["errors"].clone();
    ensure!(errors["measure"] == 0, "{errors}");
    Ok(Verdict::Passed)
}
