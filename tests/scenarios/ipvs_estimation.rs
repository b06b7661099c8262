//! `ipvs_estimation`: what the agent measures against the kernel's own tracer and against a ping.
//!
//! Nothing here rests on how fast the machine is: a pass over thousands of services and 128 CPUs is
//! slow on any, one over a few is not, and intervals are compared with intervals of the same run.

mod ftrace;
mod ping;

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::{self, Family, Protocol, Services};
use nodemedic_tests::guest::{Guest, NetNs, Process};
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;
use nodemedic_tests::usage;
use serde_json::Value;

use self::ftrace::Tracer;
use self::ping::Ping;
use crate::agent::{Agent, SOON, check, verb};

const AILMENT: &str = "ipvs_estimation";

pub(crate) const ESTIMATORS: &str = "nodemedic_ipvs_estimation_estimators";
const SERVICES: &str = "nodemedic_ipvs_estimation_services";
const PASSES: &str = "nodemedic_ipvs_estimation_duration_seconds_count";
const PASS_SECONDS: &str = "nodemedic_ipvs_estimation_duration_seconds_sum";
const PREDICTED: &str = "nodemedic_ipvs_estimation_predicted_seconds";
const CALIBRATED: &str = "nodemedic_ipvs_estimation_calibrated";
const CPU_SECONDS: &str = "nodemedic_ipvs_estimation_cpu_seconds_total";
const THREADS: &str = "nodemedic_ipvs_estimation_threads";
const ENABLED: &str = "nodemedic_ipvs_estimation_enabled";
const WATCHING: &str = "nodemedic_ipvs_estimation_tracing_active";
const LOST: &str = "nodemedic_ailment_lost_events_total";

const RUN_ESTIMATION: &str = "net.ipv4.vs.run_estimation";
const EST_NICE: &str = "net.ipv4.vs.est_nice";
const TIMER: &str = "estimation_timer";
const CHAIN: &str = "ip_vs_chain_estimation";

/// A pass over a thousand services and 128 CPUs takes several times as long, one over a few a tenth.
/// Threads of an emulated CPU take much of it.
const SETTINGS: &str = "slow_threshold = \"25ms\"\nscan_interval = \"1s\"\nscan_timeout = \"10s\"\nestimator_cpu_ratio = 1.0";

/// Which kind of estimator the kernel has; ip_vs must be loaded.
fn has_threads(guest: &Guest) -> Result<bool> {
    guest.has_symbol(CHAIN)
}

fn has_switch(guest: &Guest) -> bool {
    guest.sysctl(RUN_ESTIMATION).is_ok()
}

/// Though nothing is wrong.
fn stop_estimation(guest: &Guest) -> Result<()> {
    let treat = [
        "treat",
        AILMENT,
        "--treatment",
        "run_estimation",
        "--apply",
        "--force",
    ];
    verb(guest, &treat)?.ok()?;
    Ok(())
}

/// Something that wants all of each CPU, and gives way to everybody.
fn busy(guest: &Guest) -> Result<Vec<Process>> {
    const LOWEST: i32 = 19;
    let spin = |cpu: u32| {
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu.to_string(), "sh", "-c", "while :; do :; done"]);
        let process = guest.start(&format!("busy-{cpu}"), &mut command)?;
        let pid = rustix::process::Pid::from_raw(process.id().cast_signed());
        // It fails for a process that is not there.
        rustix::process::setpriority_process(pid, LOWEST).context("make it nice")?;
        Ok(process)
    };
    (0..guest.online_cpus()?).map(spin).collect()
}

pub(crate) fn few_services_are_healthy(guest: &Guest) -> Result<Verdict> {
    Services::new(10).add(guest)?;
    let _busy = busy(guest)?;
    let settings = format!("{SETTINGS}\ntrace_linger = \"1s\"");
    let mut agent = Agent::start_for(guest, AILMENT, &settings)?;
    agent.shows("the estimators, and passes over them", SOON, |metrics| {
        let estimators = metrics.sum(ESTIMATORS, &[]);
        ensure!(estimators == 21.0, "{estimators} estimators");
        let passes = metrics.sum(PASSES, &[]);
        ensure!(passes >= 3.0, "{passes} passes");
        Ok(())
    })?;
    agent.finds(&[], SOON)?;
    // What tells who waits is not even attached.
    nothing_is_watched(&mut agent)?;
    // A CPU of the host that is taken away in the middle of a pass makes it slow, now and then.
    eventually(4 * SOON, "check finds nothing", || {
        let checked = check(guest, &[AILMENT])?;
        ensure!(checked.status.code() == Some(0), "{}", checked.stdout);
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

fn nothing_is_watched(agent: &mut Agent) -> Result<()> {
    let pid = agent.process().id();
    eventually(SOON, "nothing is watched", || {
        let watched = raw_tracepoints(pid)?;
        ensure!(watched.is_empty(), "watched: {watched:?}");
        Ok(())
    })
}

/// The raw tracepoints that a process has programs on, as the kernel tells of its descriptors.
fn raw_tracepoints(pid: u32) -> Result<Vec<String>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        // A descriptor that has gone has none.
        let info = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let name = info.lines().find_map(|line| line.strip_prefix("tp_name:"));
        names.extend(name.map(|name| name.trim().to_owned()));
    }
    names.sort();
    Ok(names)
}

pub(crate) fn a_thousand_services_stall_until_estimation_is_off(guest: &Guest) -> Result<Verdict> {
    stall_until_estimation_is_off(guest, 1_000)
}

pub(crate) fn five_thousand_services_stall_until_estimation_is_off(
    guest: &Guest,
) -> Result<Verdict> {
    stall_until_estimation_is_off(guest, 5_000)
}

fn stall_until_estimation_is_off(guest: &Guest, services: u32) -> Result<Verdict> {
    Services::new(services).add(guest)?;
    let _busy = busy(guest)?;
    let settings = format!("{SETTINGS}\ntrace_linger = \"1s\"");
    let mut agent = Agent::start_for(guest, AILMENT, &settings)?;
    let estimators = f64::from(1 + 2 * services);
    agent.shows("the estimators", SOON, |metrics| {
        let shown = metrics.value(ESTIMATORS, &[])?;
        ensure!(shown == estimators, "{shown} estimators");
        Ok(())
    })?;
    if has_threads(guest)? {
        return threads_stall_nobody(guest, &agent);
    }
    let finding = agent.finds_one("estimator_stall", 3 * SOON)?;
    names_what_it_rests_on(guest, &finding, services)?;
    let checked = check(guest, &[AILMENT])?;
    ensure!(checked.status.code() == Some(1), "{}", checked.stdout);
    let watched = raw_tracepoints(agent.process().id())?;
    let wanted = [
        "sched_switch",
        "sched_wakeup",
        "sched_wakeup_new",
        "softirq_entry",
        "softirq_raise",
    ];
    ensure!(watched == wanted, "watched: {watched:?}");
    agent.shows("passes as they were predicted", SOON, |metrics| {
        let predicted = metrics.value(PREDICTED, &[])?;
        ensure!(metrics.value(CALIBRATED, &[])? == 1.0, "not calibrated");
        let mean = metrics.value(PASS_SECONDS, &[])? / metrics.value(PASSES, &[])?;
        ensure!(
            predicted > mean / 2.0 && predicted < mean * 2.0,
            "predicted {predicted} s, seen {mean} s"
        );
        Ok(())
    })?;
    if has_switch(guest) {
        verb(guest, &["treat", AILMENT, "--apply"])?.ok()?;
        ensure!(guest.sysctl(RUN_ESTIMATION)? == "0", "it is on");
        is_healthy_and_frozen(guest, &mut agent)?;
        verb(guest, &["undo"])?.ok()?;
        ensure!(guest.sysctl(RUN_ESTIMATION)? == "1", "it is off");
        agent.finds_one("estimator_stall", 3 * SOON)?;
    } else {
        let refused = verb(guest, &["treat", AILMENT, "--apply"])?;
        ensure!(
            refused.status.code() == Some(2) && refused.stderr.contains("on this kernel"),
            "{refused:?}"
        );
        ipvs::clear(guest)?;
        agent.finds(&[], 2 * SOON)?;
    }
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// Numbers, and remedies that exist on this kernel.
fn names_what_it_rests_on(guest: &Guest, finding: &Value, services: u32) -> Result<()> {
    let evidence = finding["evidence"].as_array().context("evidence")?;
    let value = |what: &str| {
        let of = |it: &&Value| it["metric"].as_str().is_some_and(|it| it.starts_with(what));
        let found = evidence.iter().find(of);
        found
            .and_then(|it| it["value"].as_f64())
            .with_context(|| format!("no {what} in {evidence:?}"))
    };
    for (what, wanted) in [
        ("services of", f64::from(services)),
        ("destinations of", f64::from(services)),
        ("possible CPUs", f64::from(guest.possible_cpus()?)),
        ("online CPUs", f64::from(guest.online_cpus()?)),
    ] {
        ensure!(value(what)? == wanted, "{what}: {}", value(what)?);
    }
    ensure!(value("longest pass")? >= 0.025, "{evidence:?}");
    ensure!(value("longest wait")? >= 0.025, "{evidence:?}");
    let remedies = finding["remedies"].to_string();
    for (remedy, exists) in [
        ("possible_cpus=2", true),
        ("run_estimation=0", has_switch(guest)),
        ("est_nice", false),
    ] {
        ensure!(remedies.contains(remedy) == exists, "{remedy}: {remedies}");
    }
    Ok(())
}

fn is_healthy_and_frozen(guest: &Guest, agent: &mut Agent) -> Result<()> {
    let report = agent
        .finds(&[], 2 * SOON)
        .context("after run_estimation=0")?;
    let notes = report["notes"].to_string();
    ensure!(notes.contains("statistics are frozen"), "{notes}");
    agent.shows("that it is off", SOON, |metrics| {
        ensure!(metrics.value(ENABLED, &[])? == 0.0, "it is on");
        ensure!(metrics.value(PREDICTED, &[])? == 0.0, "a pass is predicted");
        Ok(())
    })?;
    let checked = check(guest, &[AILMENT])?;
    ensure!(
        checked.status.code() == Some(0) && checked.stdout.contains("statistics are frozen"),
        "{}",
        checked.stdout
    );
    nothing_is_watched(agent)
}

/// From 6.2 on: the work is the same, in pieces that hold nobody up, and what it burns is shown.
fn threads_stall_nobody(guest: &Guest, agent: &Agent) -> Result<Verdict> {
    agent.shows("the threads and what they burn", 2 * SOON, |metrics| {
        ensure!(metrics.value(THREADS, &[])? >= 1.0, "no threads");
        let passes = metrics.value(PASSES, &[("context", "kthread")])?;
        let in_passes = metrics.value(PASS_SECONDS, &[("context", "kthread")])?;
        let burnt = metrics.value(CPU_SECONDS, &[])?;
        ensure!(passes >= 50.0, "{passes} chains");
        ensure!(
            burnt > in_passes / 4.0,
            "{burnt} s of CPU, {in_passes} s in chains"
        );
        ensure!(metrics.value(CALIBRATED, &[])? == 1.0, "not calibrated");
        ensure!(
            metrics.select(WATCHING, &[]).next().is_none(),
            "waits are watched"
        );
        Ok(())
    })?;
    agent.finds(&[], SOON)?;
    let refused = verb(guest, &["treat", AILMENT, "--apply"])?;
    ensure!(
        refused.status.code() == Some(2) && guest.sysctl(RUN_ESTIMATION)? == "1",
        "a healthy node is treated: {refused:?}"
    );
    stop_estimation(guest)?;
    let report = agent.finds(&[], SOON)?;
    eventually(SOON, "it says that statistics are frozen", || {
        let notes = agent.report()?["notes"].to_string();
        ensure!(notes.contains("statistics are frozen"), "{notes}");
        Ok(())
    })?;
    ensure!(!report["reading"].is_null(), "{report}");
    agent.shows("no threads", 2 * SOON, |metrics| {
        let threads = metrics.value(THREADS, &[])?;
        ensure!(threads == 0.0, "{threads} threads");
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    verb(guest, &["undo"])?.ok()?;
    ensure!(guest.sysctl(RUN_ESTIMATION)? == "1", "it is off");
    Ok(Verdict::Passed)
}

/// Estimation that was switched off stays off in a network namespace that comes later, and when
/// ip_vs has been unloaded and loaded again; undone, it is on in each.
pub(crate) fn a_treatment_follows_namespaces_and_reloads(guest: &Guest) -> Result<Verdict> {
    Services::new(10).add(guest)?;
    if !has_switch(guest) {
        return Ok(Verdict::Skipped("it has no run_estimation".to_owned()));
    }
    let agent = Agent::start_for(guest, AILMENT, "scan_interval = \"1s\"")?;
    agent.finds(&[], SOON)?;
    stop_estimation(guest)?;
    ensure!(guest.sysctl(RUN_ESTIMATION)? == "0", "it is on");

    let pod = guest.netns("pod")?;
    let _inhabitant = guest.start("inhabitant", pod.command("sleep").arg("86400"))?;
    let in_pod = || {
        Ok(pod
            .sh(&format!("sysctl -n {RUN_ESTIMATION}"))?
            .trim()
            .to_owned())
    };
    Services::new(10).add_in(guest, &pod)?;
    ensure!(in_pod()? == "1", "it begins switched off");
    // It looks for namespaces twice a minute.
    is_eventually("0", in_pod)?;

    pod.sh("ipvsadm --clear")?;
    ipvs::clear(guest)?;
    agent.lets_go_of(guest, &["ip_vs_rr", "ip_vs"])?;
    agent.waits_for("ip_vs")?;
    Services::new(10).add(guest)?;
    is_eventually("0", || guest.sysctl(RUN_ESTIMATION))?;

    Services::new(10).add_in(guest, &pod)?;
    is_eventually("0", in_pod)?;
    verb(guest, &["undo"])?.ok()?;
    ensure!(guest.sysctl(RUN_ESTIMATION)? == "1", "it is off");
    ensure!(in_pod()? == "1", "it is off in the other namespace");
    Ok(Verdict::Passed)
}

fn is_eventually(value: &str, read: impl Fn() -> Result<String>) -> Result<()> {
    eventually(3 * SOON, "the switch", || {
        let now = read()?;
        ensure!(now == value, "it is {now}");
        Ok(())
    })
}

/// Where threads are dear, the remedies of this kernel are told; a higher limit finds nothing.
pub(crate) fn busy_threads_let_others_go_first_until_that_is_undone(
    guest: &Guest,
) -> Result<Verdict> {
    guest.modprobe("ip_vs")?;
    if !has_threads(guest)? {
        return Ok(Verdict::Skipped("its estimator has no threads".to_owned()));
    }
    Services::new(1_000).add(guest)?;
    let settings = "estimator_cpu_ratio = 0.0000001\nscan_interval = \"1s\"";
    let agent = Agent::start_for(guest, AILMENT, settings)?;
    let finding = agent.finds_one("estimator_cpu", SOON)?;
    let remedies = finding["remedies"].to_string();
    for remedy in ["est_nice=19", "est_cpulist=LIST", "run_estimation=0"] {
        ensure!(remedies.contains(remedy), "{remedy}: {remedies}");
    }
    let nice = || guest.sysctl(EST_NICE);
    let before = nice()?;
    verb(guest, &["treat", AILMENT, "--duration", "5m", "--apply"])?.ok()?;
    let after = nice()?;
    ensure!(
        (before.as_str(), after.as_str()) == ("0", "19"),
        "est_nice was {before}, is {after}"
    );
    let report = agent.finds(&[], SOON)?;
    let notes = report["notes"].to_string();
    ensure!(notes.contains("at nice 19"), "the notes are {notes}");
    verb(guest, &["undo"])?.ok()?;
    ensure!(nice()? == before, "est_nice is {}", nice()?);
    agent.finds(&["estimator_cpu"], SOON)?;
    drop(agent);
    let agent = Agent::start_for(guest, AILMENT, "estimator_cpu_ratio = 1.0")?;
    agent.finds(&[], SOON)?;
    Ok(Verdict::Passed)
}

pub(crate) fn passes_agree_with_the_kernels_tracer(guest: &Guest) -> Result<Verdict> {
    agrees_with_the_tracer(guest, SETTINGS)
}

pub(crate) fn passes_agree_with_the_kernels_tracer_by_kprobes(guest: &Guest) -> Result<Verdict> {
    let settings = format!("{SETTINGS}\nhooks = [\"raw_tracepoint\", \"kprobe\"]");
    agrees_with_the_tracer(guest, &settings)
}

fn agrees_with_the_tracer(guest: &Guest, settings: &str) -> Result<Verdict> {
    Services::new(1_000).add(guest)?;
    if has_threads(guest)? {
        chains_agree(guest, settings)
    } else {
        slow_passes_agree(guest, settings)
    }
}

/// Each slow pass, one by one: the same begin and the same length.
fn slow_passes_agree(guest: &Guest, settings: &str) -> Result<Verdict> {
    const PASSES: usize = 5;
    let agent = Agent::start_for(guest, AILMENT, settings)?;
    let tracer = Tracer::on(guest, TIMER)?;
    let mut seen = Seen::new("passes");
    eventually(3 * SOON, "slow passes", || {
        seen.look(&agent)?;
        let traced = seen.since(tracer.since).count();
        ensure!(traced >= PASSES, "{traced} of them");
        Ok(())
    })?;
    let traced = tracer.calls()?;
    for (begin, seconds) in seen.since(tracer.since) {
        let call = traced
            .iter()
            .find(|call| (call.began - begin).abs() < 0.5)
            .with_context(|| format!("ftrace has no call at {begin}, but {traced:?}"))?;
        println!("the agent: {seconds} s, ftrace: {} s", call.seconds);
        ensure!(
            (call.seconds - seconds).abs() < 0.1 * call.seconds,
            "the agent: {seconds} s, ftrace: {} s",
            call.seconds
        );
    }
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// All chains from one moment without any to the next: as many, and as long.
fn chains_agree(guest: &Guest, settings: &str) -> Result<Verdict> {
    guest.set_sysctl(RUN_ESTIMATION, "0")?;
    let agent = Agent::start_for(guest, AILMENT, settings)?;
    let before = settled(&agent)?;
    let tracer = Tracer::on(guest, CHAIN)?;
    guest.set_sysctl(RUN_ESTIMATION, "1")?;
    agent.shows("chains", 2 * SOON, |metrics| {
        let passes = metrics.sum(PASSES, &[]) - before.0;
        ensure!(passes >= 200.0, "{passes} chains");
        Ok(())
    })?;
    guest.set_sysctl(RUN_ESTIMATION, "0")?;
    let after = settled(&agent)?;
    let traced = tracer.calls()?;
    let (count, seconds) = (after.0 - before.0, after.1 - before.1);
    let traced_seconds: f64 = traced.iter().map(|call| call.seconds).sum();
    nothing_is_lost(&agent.metrics()?)?;
    let missed = agent
        .metrics()?
        .sum(LOST, &[("ailment", AILMENT), ("reason", "missed")]);
    let all = traced.len() as f64;
    ensure!(
        count <= all && count + missed >= all,
        "{count} chains and {missed} missed, ftrace has {all}"
    );
    ensure!(
        (seconds - traced_seconds).abs() < 0.25 * traced_seconds,
        "{seconds} s in chains, ftrace has {traced_seconds} s"
    );
    Ok(Verdict::Passed)
}

/// The count of passes and their seconds, once no more come.
fn settled(agent: &Agent) -> Result<(f64, f64)> {
    let read = || -> Result<(f64, f64)> {
        let metrics = agent.metrics()?;
        Ok((metrics.sum(PASSES, &[]), metrics.sum(PASS_SECONDS, &[])))
    };
    let mut last = read()?;
    eventually(2 * SOON, "no more passes", || {
        sleep(Duration::from_secs(3));
        let before = std::mem::replace(&mut last, read()?);
        ensure!(before == last, "{before:?}, then {last:?}");
        Ok(last)
    })
}

/// No other thing than a pass keeps a packet for so long, seconds.
const OUTLIER: f64 = 0.1;

/// Two CPUs: the estimator and the receive work on one, whoever sends and gets the answers on the
/// other. Nothing but packets waits, and what they wait is what the ping sees.
pub(crate) fn packets_alone_wait_and_a_ping_sees_it(guest: &Guest) -> Result<Verdict> {
    /// A host with other work stalls the machine now and then, which no pass explains; a watch
    /// that it disturbed is taken anew.
    const WATCHES: usize = 3;
    Services::new(5_000).add(guest)?;
    if has_threads(guest)? {
        return a_ping_sees_no_stall(guest);
    }
    // The timer stays where it is.
    guest.set_sysctl("kernel.timer_migration", "0")?;
    let agent = Agent::start_for(guest, AILMENT, SETTINGS)?;
    let passes = eventually(2 * SOON, "slow passes", || {
        let report = agent.report()?;
        let passes = report["reading"]["probed"]["recent"]["passes"].as_array();
        let passes = passes.context("passes")?.clone();
        ensure!(passes.len() >= 2, "{passes:?}");
        Ok(passes)
    })?;
    let estimating = passes.last().and_then(|it| it["cpu"].as_u64());
    let estimating = estimating.context("the CPU of a pass")?;
    let outside = ping::outside(guest, estimating)?;
    let watch = || waits_and_pings_agree(guest, &agent, &outside, 1 - estimating);
    for _ in 1..WATCHES {
        match watch() {
            Ok(()) => return Ok(Verdict::Passed),
            Err(error) => println!("watching again: {error:#}"),
        }
    }
    watch().map(|()| Verdict::Passed)
}

/// While packets wait for passes on one CPU, a ping that is answered by the other has its outliers
/// then, and at no other time.
fn waits_and_pings_agree(
    guest: &Guest,
    agent: &Agent,
    outside: &NetNs,
    sending: u64,
) -> Result<()> {
    let ping = Ping::from(guest, outside, sending)?;
    let begin = ftrace::unix_seconds()?;
    let mut waits = Seen::new("rx_waits");
    eventually(3 * SOON, "packets that wait", || {
        waits.look(agent)?;
        let since = waits.since(begin).count();
        ensure!(since >= 8, "{since} waits");
        Ok(())
    })?;
    let pings = ping.stop()?;
    waits.look(agent)?;
    let finding = agent.finds_one("estimator_stall", SOON)?;
    let summary = finding["summary"].to_string();
    ensure!(summary.contains("received packets waited"), "{summary}");

    let outliers: Vec<_> = pings.iter().filter(|it| it.seconds >= OUTLIER).collect();
    let explained = outliers.iter().filter(|ping| {
        waits.intervals().any(|(begin, seconds)| {
            // Sent before or while the softirq waits, answered when it has run.
            let end = begin + seconds;
            ping.began < end && ping.ended() > begin && ping.ended() < end + OUTLIER
        })
    });
    let explained = explained.count();
    println!(
        "{} pings, {} outliers, {explained} within {} waits",
        pings.len(),
        outliers.len(),
        waits.len()
    );
    ensure!(outliers.len() >= 5, "only {} outliers", outliers.len());
    ensure!(
        explained * 10 >= outliers.len() * 9,
        "{explained} of {} outliers are explained",
        outliers.len()
    );
    // The other way round, while the ping ran.
    let (first, last) = (pings[0].began, pings[pings.len() - 1].began);
    let while_pinging = waits.intervals().filter(|(begin, seconds)| {
        *seconds >= 2.0 * OUTLIER && *begin > first && begin + seconds < last
    });
    let (mut long, mut noticed) = (0, 0);
    for (begin, seconds) in while_pinging {
        long += 1;
        let here = |ping: &&&ping::Echo| ping.began < begin + seconds && ping.ended() > begin;
        noticed += usize::from(outliers.iter().any(|ping| here(&ping)));
    }
    ensure!(
        long >= 3 && noticed * 10 >= long * 9,
        "of {long} long waits the ping noticed {noticed}"
    );
    Ok(())
}

/// From 6.2 on the same load and the same ping: the stalls are gone, and so says the agent.
fn a_ping_sees_no_stall(guest: &Guest) -> Result<Verdict> {
    let agent = Agent::start_for(guest, AILMENT, SETTINGS)?;
    let outside = ping::outside(guest, 0)?;
    let ping = Ping::from(guest, &outside, 1)?;
    sleep(Duration::from_secs(20));
    let pings = ping.stop()?;
    agent.finds(&[], SOON)?;
    let outliers = pings.iter().filter(|it| it.seconds >= OUTLIER).count();
    println!("{} pings, {outliers} outliers", pings.len());
    // Up to 6.1 they are one in ten.
    ensure!(
        outliers * 50 < pings.len(),
        "{outliers} outliers of {} pings",
        pings.len()
    );
    Ok(Verdict::Passed)
}

/// Intervals of one kind that the agent's reports have shown, each once, by their begin in
/// microseconds.
struct Seen {
    kind: &'static str,
    intervals: BTreeMap<i64, f64>,
}

impl Seen {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            intervals: BTreeMap::new(),
        }
    }

    fn look(&mut self, agent: &Agent) -> Result<()> {
        let report = agent.report()?;
        let recent = report["reading"]["probed"]["recent"][self.kind].as_array();
        for interval in recent.into_iter().flatten() {
            let number = |what: &str| interval[what].as_f64().context("an interval's number");
            let (begin, seconds) = (number("began_unix_seconds")?, number("seconds")?);
            // The two clocks drift apart by microseconds between readings.
            let key = (begin * 1e3).round() as i64;
            let known = (key - 3..=key + 3).any(|key| self.intervals.contains_key(&key));
            if !known {
                self.intervals.insert(key, seconds);
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.intervals.len()
    }

    /// Those that began after a time.
    fn since(&self, unix_seconds: f64) -> impl Iterator<Item = (f64, f64)> {
        self.intervals()
            .filter(move |(begin, _)| *begin > unix_seconds)
    }

    /// Begin and length, seconds.
    fn intervals(&self) -> impl Iterator<Item = (f64, f64)> {
        self.intervals
            .iter()
            .map(|(begin, seconds)| (*begin as f64 / 1e3, *seconds))
    }
}

/// Where the module has no types of its own, the agent says so, takes the next hook, and knows no
/// namespaces; elsewhere it takes the cheapest and has nothing to say.
pub(crate) fn the_hook_fits_the_kernel(guest: &Guest) -> Result<Verdict> {
    Services::new(3).add(guest)?;
    let agent = Agent::start_for(guest, AILMENT, "")?;
    let report = agent.report()?;
    let probes = report["probes"].as_array().context("probes")?;
    let hook = |name: &str| {
        let probe = probes.iter().find(|probe| probe["name"] == name);
        probe.map(|probe| probe["hook"].clone())
    };
    let types = guest.has_btf("ip_vs");
    let passes = if types { "fentry" } else { "kprobe" };
    ensure!(hook("passes") == Some(passes.into()), "{report}");
    let waits = (!has_threads(guest)?).then(|| Value::from("raw_tracepoint"));
    ensure!(
        hook("packets") == waits && hook("tasks") == waits,
        "{report}"
    );
    let coverage = if types { "full" } else { "partial" };
    ensure!(report["coverage"]["state"] == coverage, "{report}");
    ensure!(
        hook("namespaces") == (!types).then_some(Value::Null),
        "{report}"
    );
    Ok(Verdict::Passed)
}

/// Without a probe the services are counted, and what a pass will take is foretold.
pub(crate) fn without_hooks_the_baseline_stands_in(guest: &Guest) -> Result<Verdict> {
    Services::new(5_000).add(guest)?;
    let threads = has_threads(guest)?;
    let settings = format!("{SETTINGS}\nhooks = []");
    let agent = Agent::start_for(guest, AILMENT, &settings)?;
    agent.shows("what is foretold", SOON, |metrics| {
        ensure!(metrics.value(ESTIMATORS, &[])? == 10_001.0, "not all");
        ensure!(metrics.select(PASSES, &[]).next().is_none(), "passes");
        let predicted = metrics.value(PREDICTED, &[])?;
        ensure!(predicted > 0.0, "nothing is predicted");
        // Threads tell by their clocks what a visit costs.
        ensure!(metrics.value(CALIBRATED, &[])? == f64::from(u8::from(threads)));
        Ok(())
    })?;
    if threads {
        agent.finds(&[], SOON)?;
    } else {
        let finding = agent.finds_one("at_risk", SOON)?;
        let evidence = finding["evidence"].to_string();
        ensure!(evidence.contains("mailing list"), "{evidence}");
    }
    let probes = agent.report()?["probes"].to_string();
    ensure!(probes.contains("hooks"), "{probes}");
    Ok(Verdict::Passed)
}

/// Each namespace has its own services, and its own switch; so have all protocols and families.
pub(crate) fn every_namespace_and_protocol_is_counted(guest: &Guest) -> Result<Verdict> {
    let (left, right) = (guest.netns("left")?, guest.netns("right")?);
    Services::new(6).destinations(2).add(guest)?;
    Services::new(5).family(Family::V6).add(guest)?;
    Services::new(7)
        .protocol(Protocol::Udp)
        .add_in(guest, &left)?;
    Services::new(5)
        .protocol(Protocol::Sctp)
        .add_in(guest, &right)?;
    // A namespace is found through a process in it.
    let _left = guest.start("left", left.command("sleep").arg("1000"))?;
    let _right = guest.start("right", right.command("sleep").arg("1000"))?;
    let inode = "stat -Lc %i /proc/self/ns/net";
    let numbers = [guest.sh(inode)?, left.sh(inode)?, right.sh(inode)?];
    let numbers = numbers.map(|number| number.trim().to_owned());
    let agent = Agent::start_for(guest, AILMENT, SETTINGS)?;
    let of_each = |metric: &'static str, wanted: [f64; 3]| {
        let shown = format!("{metric} of each is {wanted:?}");
        agent.shows(&shown, 2 * SOON, |metrics| {
            for (netns, wanted) in numbers.iter().zip(wanted) {
                let shown = metrics.value(metric, &[("netns", netns)])?;
                ensure!(shown == wanted, "{netns}: {shown}");
            }
            Ok(())
        })
    };
    of_each(ESTIMATORS, [29.0, 15.0, 11.0])?;

    // A long list, from which procfs leaves out as many as others have, and no more.
    Services::new(200).protocol(Protocol::Udp).add(guest)?;
    agent.shows("all services", SOON, |metrics| {
        let services = metrics.value(SERVICES, &[])?;
        ensure!((211.0..=223.0).contains(&services), "{services} services");
        Ok(())
    })?;

    // What passes tell of other namespaces.
    let has_types = !has_threads(guest)? && guest.has_btf("ip_vs");
    if has_types && has_switch(guest) {
        left.set_sysctl(RUN_ESTIMATION, "0")?;
        of_each(ENABLED, [1.0, 0.0, 1.0])?;
        let notes = agent.report()?["notes"].to_string();
        ensure!(notes.contains(&numbers[1]), "{notes}");
    }
    Ok(Verdict::Passed)
}

/// They are counted, and not kept.
pub(crate) fn twenty_thousand_services_take_no_memory(guest: &Guest) -> Result<Verdict> {
    const GROWTH: u64 = 6 << 20;
    Services::new(10).protocol(Protocol::Udp).add(guest)?;
    let settings = "scan_interval = \"1s\"\nscan_timeout = \"10s\"";
    let mut agent = Agent::start_for(guest, AILMENT, settings)?;
    agent.shows("the first of them", SOON, |metrics| {
        let services = metrics.value(SERVICES, &[])?;
        ensure!(services == 10.0, "{services}");
        Ok(())
    })?;
    let pid = agent.process().id();
    let before = usage::memory(pid)?.resident;
    Services::new(20_000).add(guest)?;
    // An emulated CPU may be too slow to list all of them.
    agent.shows("thousands of services", 8 * SOON, |metrics| {
        let services = metrics.value(SERVICES, &[])?;
        ensure!(services > 5_000.0, "{services}");
        Ok(())
    })?;
    // What was read for a moment is given back.
    eventually(SOON, "the agent is as small as before", || {
        let after = usage::memory(pid)?.resident;
        ensure!(
            after < before + GROWTH,
            "{before} bytes before, {after} after"
        );
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// The module comes after the agent, goes, and comes back.
pub(crate) fn the_module_comes_goes_and_comes_back(guest: &Guest) -> Result<Verdict> {
    ensure!(!guest.is_loaded("ip_vs")?, "ip_vs is loaded already");
    let agent = Agent::start_for(guest, AILMENT, SETTINGS)?;
    agent.waits_for("ip_vs")?;
    for round in 1..=2 {
        let before = agent.metrics()?.sum(PASSES, &[]);
        Services::new(50).add(guest)?;
        let what = format!("round {round}: passes over the services");
        agent.shows(&what, 2 * SOON, |metrics| {
            let estimators = metrics.sum(ESTIMATORS, &[]);
            let passes = metrics.sum(PASSES, &[]);
            ensure!(
                estimators == 101.0 && passes > 0.0 && passes != before,
                "{estimators} estimators, {passes} passes"
            );
            Ok(())
        })?;
        ipvs::clear(guest)?;
        agent.lets_go_of(guest, &["ip_vs_rr", "ip_vs"])?;
        agent.waits_for("ip_vs")?;
    }
    Ok(Verdict::Passed)
}

/// But for what the kernel left out and has told: where threads are preempted inside a program, it
/// is not run for another on that CPU. And but for passes that were under way while somebody, such
/// as `check`, attached to their function or let go of it.
fn nothing_is_lost(metrics: &Metrics) -> Result<()> {
    const CUT_OFF: f64 = 8.0;
    let lost = |reason: &str| metrics.sum(LOST, &[("ailment", AILMENT), ("reason", reason)]);
    let all = metrics.sum(LOST, &[("ailment", AILMENT)]);
    let reasons = metrics
        .select(LOST, &[("ailment", AILMENT)])
        .collect::<Vec<_>>();
    ensure!(
        all == lost("missed") + lost("call") && lost("call") <= CUT_OFF,
        "events are lost: {reasons:?}"
    );
    Ok(())
}
