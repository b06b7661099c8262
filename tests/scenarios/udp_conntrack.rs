//! `udp_conntrack`: what the agent counts against what the kernel and the clients know.

pub(crate) mod refused;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::dns::{CLIENT, Site};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use crate::agent::{Agent, SOON, check, verb};

pub(crate) const UDP_TIMEOUT: &str = "net.netfilter.nf_conntrack_udp_timeout";
const UDP_TIMEOUT_STREAM: &str = "net.netfilter.nf_conntrack_udp_timeout_stream";
pub(crate) const MAX: &str = "net.netfilter.nf_conntrack_max";

pub(crate) const CREATED: &str = "nodemedic_udp_conntrack_created_total";
const REMOVED: &str = "nodemedic_udp_conntrack_removed_total";
const LIFETIME_COUNT: &str = "nodemedic_udp_conntrack_lifetime_seconds_count";
const LIFETIME_SUM: &str = "nodemedic_udp_conntrack_lifetime_seconds_sum";
const WASTED: &str = "nodemedic_udp_conntrack_wasted_entry_seconds_total";
const ENTRIES: &str = "nodemedic_conntrack_entries";
const LOST: &str = "nodemedic_ailment_lost_events_total";

/// The kernel sweeps for expired entries every two minutes at the latest up to 5.10, every one
/// after; `conntrack -L` makes it look at once.
const SWEEP: Duration = Duration::from_secs(100);

/// The scan of the agent is off: it makes the kernel drop what has expired, and a test that looks
/// at lifetimes wants to know who did it.
const NO_SCAN: &str = "scan_interval = \"0s\"";

/// A rule that counts the packets for which the kernel made a new UDP entry.
const NEW_UDP: &str = "-p udp -m conntrack --ctstate NEW";

pub(crate) fn one_shots_are_counted_exactly(guest: &Guest) -> Result<Verdict> {
    counted_exactly(guest, NO_SCAN, 8)
}

/// The same through the dearer hook, which kernels without BTF of modules need. A kprobe that is
/// hit while the CPU is in another is left out by the kernel, so nothing expires during the storm.
pub(crate) fn one_shots_are_counted_exactly_by_kprobes(guest: &Guest) -> Result<Verdict> {
    counted_exactly(guest, &format!("{NO_SCAN}\nhooks = [\"kprobe\"]"), 20)
}

fn counted_exactly(guest: &Guest, settings: &str, timeout: u32) -> Result<Verdict> {
    const EXCHANGES: u16 = 1_000;
    let wanted = f64::from(EXCHANGES);
    let site = Site::build(guest)?;
    guest.set_sysctl(MAX, "20000")?;
    guest.set_sysctl(UDP_TIMEOUT, &timeout.to_string())?;
    let agent = Agent::start(guest, settings)?;
    let before = agent.metrics()?;
    ensure!(
        before.sum(CREATED, &[]) == 0.0,
        "entries were counted before there were any"
    );

    guest.sh(&format!("iptables -t mangle -A FORWARD {NEW_UDP}"))?;
    site.one_shots(20_000..20_000 + EXCHANGES)?;
    let client = CLIENT.to_string();
    agent.shows(
        "every exchange is counted, and nothing else",
        SOON,
        |metrics| {
            let dns = metrics.value(CREATED, &[("source", &client), ("port", "53")])?;
            let all = metrics.sum(CREATED, &[]);
            let missed = missed(metrics);
            ensure!(
                dns == all && dns <= wanted && dns + missed >= wanted,
                "DNS of the client {dns}, all {all}, missed {missed}"
            );
            Ok(())
        },
    )?;
    let counter = guest.sh("iptables -t mangle -vnxL FORWARD | tail -n 1")?;
    let seen = counter.split_whitespace().next();
    ensure!(
        seen == Some(EXCHANGES.to_string().as_str()),
        "the kernel saw {counter}"
    );

    eventually(SWEEP, "the kernel has dropped the entries", || {
        let left: u32 = guest
            .sh("conntrack -L 2>/dev/null >&2; conntrack -C")?
            .trim()
            .parse()?;
        ensure!(left == 0, "{left} entries are left");
        Ok(())
    })?;
    agent.shows(
        "every removal is counted, with its lifetime",
        SOON,
        |metrics| {
            let removed = metrics.value(REMOVED, &[("reason", "expired"), ("state", "replied")])?;
            let (all, missed) = (metrics.sum(REMOVED, &[]), missed(metrics));
            let known = metrics.value(LIFETIME_COUNT, &[])?;
            let unknown = metrics.sum(LOST, &[("reason", "lifetime")]);
            ensure!(
                all == removed && removed <= wanted && removed + missed >= wanted,
                "expired, replied: {removed}, missed: {missed}, all: {all}"
            );
            ensure!(
                known + unknown == removed && unknown <= missed,
                "{known} lifetimes, {unknown} unknown"
            );
            Ok(())
        },
    )?;
    let after = agent.metrics()?;
    lifetimes_are_of_idle_entries(&after, f64::from(timeout))?;
    nothing_is_lost(&after)?;
    Ok(Verdict::Passed)
}

/// A one-shot entry stands idle for nearly all of its life, and at least for the timeout.
fn lifetimes_are_of_idle_entries(metrics: &Metrics, timeout: f64) -> Result<()> {
    let count = metrics.value(LIFETIME_COUNT, &[])?;
    let mean = metrics.value(LIFETIME_SUM, &[])? / count;
    ensure!(
        mean >= timeout * 0.98,
        "a mean lifetime of {mean} s under a timeout of {timeout} s"
    );
    let idle = metrics.value(WASTED, &[])? / count;
    ensure!(
        idle <= mean * 1.02 && idle >= mean * 0.9,
        "entries stood idle for {idle} s of {mean} s"
    );
    Ok(())
}

fn ends(metrics: &Metrics, end: &str, state: &str, wanted: f64) -> Result<()> {
    let matching = metrics.value(REMOVED, &[("reason", end), ("state", state)])?;
    let all = metrics.sum(REMOVED, &[]);
    ensure!(
        matching == wanted && all == wanted,
        "{end}, {state}: {matching}; all: {all}"
    );
    Ok(())
}

/// But for what the kernel left out and has told, and for the lifetimes of those entries.
fn nothing_is_lost(metrics: &Metrics) -> Result<()> {
    let lost = |reason| metrics.sum(LOST, &[("reason", reason)]);
    let (all, missed) = (metrics.sum(LOST, &[]), missed(metrics));
    let reasons = metrics.select(LOST, &[]).collect::<Vec<_>>();
    let lifetimes = lost("lifetime");
    ensure!(
        all == missed + lifetimes && lifetimes <= missed,
        "events are lost: {reasons:?}"
    );
    Ok(())
}

/// A program is not run while it runs on that CPU already, and a kprobe not while the CPU is in any
/// other; preemption brings that about. What is missed must be told, and nothing else be missing.
fn missed(metrics: &Metrics) -> f64 {
    let lost = |reason| metrics.sum(LOST, &[("reason", reason)]);
    lost("missed") + lost("call")
}

/// Whether a kernel makes a flow a stream at once or after two seconds is for `conntrack` to say;
/// the agent must agree with it, and tell all three apart.
pub(crate) fn a_flow_is_counted_as_what_it_became(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.set_sysctl(UDP_TIMEOUT, "6")?;
    guest.set_sysctl(UDP_TIMEOUT_STREAM, "6")?;
    let agent = Agent::start(guest, NO_SCAN)?;
    site.talk(20_001, Duration::from_millis(2_600))?;
    site.one_shots(20_002..20_003)?;
    site.ask_nobody(20_003)?;
    let table = guest.sh("conntrack -L -p udp 2>/dev/null")?;
    let (mut assured, mut unreplied) = (0_u32, 0_u32);
    for line in table.lines() {
        assured += u32::from(line.contains("[ASSURED]"));
        unreplied += u32::from(line.contains("[UNREPLIED]"));
    }
    ensure!(
        table.lines().count() == 3 && unreplied == 1,
        "conntrack -L shows: {table}"
    );
    ensure!(assured >= 1, "no flow became a stream: {table}");
    eventually(SWEEP, "the kernel has dropped the entries", || {
        let left = guest.sh("conntrack -L -p udp 2>/dev/null")?;
        ensure!(left.is_empty(), "left: {left}");
        Ok(())
    })?;
    agent.shows("the agent agrees with conntrack -L", SOON, |metrics| {
        let removed = |state| metrics.value(REMOVED, &[("reason", "expired"), ("state", state)]);
        let (streams, replied) = (removed("assured")?, removed("replied")?);
        let nobody = removed("unreplied")?;
        ensure!(
            streams == f64::from(assured) && replied == f64::from(2 - assured) && nobody == 1.0,
            "assured {streams}, replied {replied}, unreplied {nobody}; conntrack: {table}"
        );
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// What user space deletes is told apart from what expires.
pub(crate) fn a_deleted_entry_is_counted_as_deleted(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    let agent = Agent::start(guest, NO_SCAN)?;
    site.one_shots(20_000..20_010)?;
    guest.sh("conntrack -D -p udp 2>/dev/null")?;
    agent.shows("ten deletions", SOON, |metrics| {
        ends(metrics, "userspace", "replied", 10.0)
    })?;
    Ok(Verdict::Passed)
}

pub(crate) fn a_small_table_fills_is_full_and_recovers(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.set_sysctl(MAX, "1000")?;
    guest.set_sysctl(UDP_TIMEOUT, "60")?;
    let agent = Agent::start(
        guest,
        "scan_interval = \"1s\"\nidle_entries_usage_ratio = 1.0",
    )?;
    agent.finds(&[], SOON).context("before any load")?;

    // A load that goes on: 30 a second x 60 s is more than the table holds.
    let (finding, checked) = site.while_asking(30, || {
        Ok((
            agent.finds_one("table_filling", SOON)?,
            check(guest, &["udp_conntrack"])?,
        ))
    })?;
    names_the_client(&finding)?;
    ensure!(
        checked.status.code() == Some(1),
        "check ends with {}",
        checked.status
    );
    ensure!(
        checked.stdout.contains("filling (warning)"),
        "{}",
        checked.stdout
    );

    site.flood(20_000..21_100)?;
    let finding = agent.finds_one("table_full", SOON)?;
    names_the_client(&finding)?;
    agent.shows(
        "drops and early drops as the kernel counts them",
        SOON,
        |metrics| {
            let stat = guest.sh("cat /proc/net/stat/nf_conntrack")?;
            for reason in ["drop", "early_drop"] {
                let shown =
                    metrics.value("nodemedic_conntrack_drops_total", &[("reason", reason)])?;
                ensure!(
                    shown == f64::from(sum(&stat, reason)?),
                    "{reason}: {shown}; {stat}"
                );
            }
            let pushed_out = metrics.sum(REMOVED, &[("reason", "early_drop")]);
            ensure!(
                pushed_out == f64::from(sum(&stat, "early_drop")?),
                "{pushed_out} seen; {stat}"
            );
            Ok(())
        },
    )?;

    guest.sh("conntrack -F 2>/dev/null")?;
    agent
        .finds(&[], 3 * SOON)
        .context("after the table was emptied")?;
    let status = check(guest, &["udp_conntrack"])?.status;
    ensure!(
        status.code() == Some(0),
        "check ends with {status} after all is over"
    );
    Ok(Verdict::Passed)
}

fn names_the_client(finding: &Value) -> Result<()> {
    let culprit = finding["culprits"][0]["who"].as_str().unwrap_or_default();
    ensure!(
        culprit.contains(&CLIENT.to_string()),
        "the culprit is {culprit:?}: {finding}"
    );
    Ok(())
}

/// The sum of a column in hexadecimal, found by its name.
pub(crate) fn sum(stat: &str, name: &str) -> Result<u32> {
    let mut lines = stat
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next().context("an empty file")?;
    let column = header
        .iter()
        .position(|title| *title == name)
        .context("no such column")?;
    lines
        .map(|line| Ok(u32::from_str_radix(line[column], 16)?))
        .sum()
}

/// DNS entries that stand idle are called a waste where they are most of a table that is in use,
/// and the remedy works: with a shorter timeout the same load is healthy.
pub(crate) fn idle_entries_are_a_waste_until_the_timeout_is_short(
    guest: &Guest,
) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.set_sysctl(MAX, "4000")?;
    guest.set_sysctl(UDP_TIMEOUT, "600")?;
    // Only a scan tells what stands idle before anything has expired.
    guest.modprobe("nf_conntrack_netlink")?;
    let agent = Agent::start(
        guest,
        "scan_interval = \"1s\"\ntable_filling_within = \"1s\"",
    )?;
    site.one_shots(20_000..21_000)?;
    let finding = agent.finds_one("idle_entries", SOON)?;
    names_the_client(&finding)?;
    let remedies = finding["remedies"].to_string();
    ensure!(
        remedies.contains("sysctl -w net.netfilter.nf_conntrack_udp_timeout=7"),
        "{remedies}"
    );

    guest.sh("conntrack -F 2>/dev/null")?;
    guest.set_sysctl(UDP_TIMEOUT, "2")?;
    site.one_shots(20_000..21_000)?;
    agent.finds(&[], SWEEP).context("with a short timeout")?;
    Ok(Verdict::Passed)
}

/// The module comes after the agent, goes, and comes back; what is counted is exact each time.
pub(crate) fn the_module_comes_goes_and_comes_back(guest: &Guest) -> Result<Verdict> {
    let site = Site::without_rules(guest)?;
    ensure!(
        !guest.is_loaded("nf_conntrack")?,
        "nf_conntrack is loaded already"
    );
    let agent = Agent::start(guest, NO_SCAN)?;
    agent.waits_for("nf_conntrack")?;
    for round in 1..=2 {
        site.masquerade(guest)?;
        let measured = format!("round {round}: the ailment is measured");
        eventually(2 * SOON, &measured, || {
            let report = agent.report()?;
            let attached = report["probes"][0]["hook"].is_string();
            ensure!(attached, "{} {}", report["coverage"], report["probes"]);
            Ok(())
        })?;
        let before = agent.metrics()?.sum(CREATED, &[]);
        site.one_shots(20_000..20_100)?;
        agent.shows("a hundred more", SOON, |metrics| {
            let counted = metrics.sum(CREATED, &[]) - before;
            ensure!(
                counted == 100.0,
                "round {round}: {counted} entries are counted"
            );
            Ok(())
        })?;
        site.forget_rules(guest)?;
        eventually(2 * SOON, "the agent does not keep the module", || {
            unload(guest)
        })?;
        agent.waits_for("nf_conntrack")?;
    }
    Ok(Verdict::Passed)
}

/// As an operator would: whatever stands on top of it first.
pub(crate) fn unload(guest: &Guest) -> Result<()> {
    while guest.is_loaded("nf_conntrack")? {
        let holders = guest.sh("ls /sys/module/nf_conntrack/holders")?;
        let top = holders.lines().next().unwrap_or("nf_conntrack");
        let above = guest.sh(&format!("ls /sys/module/{top}/holders"))?;
        guest.rmmod(above.lines().next().unwrap_or(top))?;
    }
    Ok(())
}

/// Where the module has no types of its own, the agent says so and takes the next hook; elsewhere
/// it takes the cheapest and has nothing to say.
pub(crate) fn the_hook_fits_the_kernel(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    let probes: Value = serde_json::from_str(&verb(guest, &["probes", "--json"])?.ok()?)?;
    let mut ailments = probes.as_array().into_iter().flatten();
    let report = ailments
        .find(|it| it["ailment"] == "udp_conntrack")
        .with_context(|| format!("nothing of the ailment: {probes}"))?;
    let (hook, why) = match guest.has_btf("nf_conntrack") {
        true => ("fentry", ""),
        false => ("kprobe", "/sys/kernel/btf/nf_conntrack does not exist"),
    };
    let probes = report["probes"].as_array().context("probes")?;
    let probes = probes.iter().filter(|probe| probe["name"] != "table_scan");
    let (mut hooks, mut reasons) = (Vec::new(), String::new());
    for probe in probes {
        hooks.push(probe["hook"].clone());
        let missing = probe["missing"].as_array().into_iter().flatten();
        reasons.extend(missing.map(|missing| missing["why"].to_string()));
    }
    ensure!(
        hooks.len() == 3 && hooks.iter().all(|used| used == hook),
        "{report}"
    );
    ensure!(
        reasons.contains(why) && reasons.is_empty() == why.is_empty(),
        "{reasons}"
    );
    Ok(Verdict::Passed)
}

/// With just the capabilities that deploy/daemonset.yaml gives, nothing is missing.
pub(crate) fn the_capabilities_of_the_daemonset_are_enough(guest: &Guest) -> Result<Verdict> {
    counted_with(
        guest,
        "+sys_admin,+net_admin,+sys_ptrace,+sys_resource",
        "fentry",
    )
}

/// Without CAP_SYS_ADMIN the types of a module are out of reach, and a kprobe stands in, where
/// perf events and locked memory are open.
pub(crate) fn without_sys_admin_a_kprobe_stands_in(guest: &Guest) -> Result<Verdict> {
    const PARANOID: &str = "kernel.perf_event_paranoid";
    let before = guest.sysctl(PARANOID)?;
    guest.set_sysctl(PARANOID, "2")?;
    let verdict = counted_with(guest, "+bpf,+perfmon,+net_admin,+sys_ptrace", "kprobe");
    guest.set_sysctl(PARANOID, &before)?;
    verdict
}

/// Counts with these capabilities and by this hook, or by kprobe where the module has no types.
fn counted_with(guest: &Guest, capabilities: &str, hook: &str) -> Result<Verdict> {
    let site = Site::build(guest)?;
    let hook = match guest.has_btf("nf_conntrack") {
        true => hook,
        false => "kprobe",
    };
    let script =
        format!("ulimit -l unlimited && exec setpriv --bounding-set=-all,{capabilities} -- \"$@\"");
    let agent = Agent::start_under(guest, &["sh", "-c", &script, "sh"], NO_SCAN)?;
    let report = agent.report()?;
    for probe in report["probes"].as_array().context("probes")? {
        ensure!(
            probe["name"] == "table_scan" || probe["hook"] == hook,
            "{probe}"
        );
    }
    site.one_shots(20_000..20_200)?;
    agent.shows("all are counted", SOON, |metrics| {
        let (counted, missed) = (metrics.sum(CREATED, &[]), missed(metrics));
        ensure!(
            counted <= 200.0 && counted + missed >= 200.0,
            "{counted} entries are counted, {missed} missed"
        );
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// Without any privilege the agent runs on, with what everybody may read, and says what it lacks.
pub(crate) fn without_privileges_the_baseline_stands_in(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let agent = Agent::start_under(guest, &nobody, "")?;
    site.one_shots(20_000..20_100)?;
    agent.shows("the entries", SOON, |metrics| {
        let entries = metrics.sum(ENTRIES, &[]);
        ensure!(entries == 100.0, "{entries} entries");
        Ok(())
    })?;
    let probes = agent.report()?["probes"].to_string();
    for lacking in ["CAP_BPF and CAP_PERFMON", "CAP_NET_ADMIN"] {
        ensure!(
            probes.contains(lacking),
            "{lacking} is not said to be missing: {probes}"
        );
    }
    let status = check(guest, &["udp_conntrack"])?.status;
    ensure!(status.code() == Some(0), "check by root ends with {status}");
    Ok(Verdict::Passed)
}

/// No probe needs a pin or an event by name.
pub(crate) fn without_bpffs_and_tracefs_nothing_is_missing(guest: &Guest) -> Result<Verdict> {
    const MOUNTS: [(&str, &str); 2] = [("bpf", "/sys/fs/bpf"), ("tracefs", "/sys/kernel/tracing")];
    let site = Site::build(guest)?;
    for (_, place) in MOUNTS {
        guest.sh(&format!("umount {place}"))?;
    }
    let counted = exactly_fifty(guest, &site);
    for (kind, place) in MOUNTS {
        guest.sh(&format!("mount -t {kind} none {place}"))?;
    }
    counted
}

fn exactly_fifty(guest: &Guest, site: &Site) -> Result<Verdict> {
    let agent = Agent::start(guest, NO_SCAN)?;
    site.one_shots(20_000..20_050)?;
    agent.shows("all are counted", SOON, |metrics| {
        let counted = metrics.sum(CREATED, &[]);
        ensure!(counted == 50.0, "{counted} entries are counted");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// Without types there are no offsets, so no probe; the agent says which file is missing.
pub(crate) fn without_btf_the_baseline_stands_in(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.sh("mount -t tmpfs none /sys/kernel/btf")?;
    let verdict = says_what_is_missing(guest, &site);
    guest.sh("umount /sys/kernel/btf")?;
    verdict
}

fn says_what_is_missing(guest: &Guest, site: &Site) -> Result<Verdict> {
    let agent = Agent::start(guest, "")?;
    site.one_shots(20_000..20_050)?;
    agent.shows("the entries", SOON, |metrics| {
        let entries = metrics.sum(ENTRIES, &[]);
        ensure!(entries == 50.0, "{entries} entries");
        Ok(())
    })?;
    let probes = agent.report()?["probes"].to_string();
    ensure!(probes.contains("/sys/kernel/btf/vmlinux"), "{probes}");
    ensure!(probes.contains("CONFIG_DEBUG_INFO_BTF"), "{probes}");
    Ok(Verdict::Passed)
}

/// The baseline alone agrees with the kernel.
pub(crate) fn without_hooks_the_baseline_stands_in(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.modprobe("nf_conntrack_netlink")?;
    let agent = Agent::start(guest, "hooks = []\nscan_interval = \"1s\"")?;
    site.one_shots(20_000..20_300)?;
    agent.shows("the entries, by count and by state", SOON, |metrics| {
        let entries = metrics.sum(ENTRIES, &[]);
        let replied = metrics.value("nodemedic_udp_conntrack_entries", &[("state", "replied")])?;
        ensure!(
            entries == 300.0 && replied == 300.0,
            "{entries} entries, {replied} replied"
        );
        ensure!(
            metrics.select(CREATED, &[]).next().is_none(),
            "creations without a probe"
        );
        Ok(())
    })?;
    let probes = agent.report()?["probes"].to_string();
    ensure!(probes.contains("hooks"), "{probes}");
    Ok(Verdict::Passed)
}

/// SIGTERM ends it in order, and nothing of it stays in the kernel; neither does after SIGKILL.
pub(crate) fn nothing_stays_attached_when_it_ends(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    let before = references(guest)?;
    for signal in ["TERM", "KILL"] {
        let mut agent = Agent::start_whole(guest, "udp_conntrack", "")?;
        guest.sh(&format!("kill -{signal} {}", agent.process().id()))?;
        let status = agent.process().wait(SOON)?;
        ensure!(
            signal == "KILL" || status.success(),
            "after SIGTERM it ends with {status}"
        );
        eventually(SOON, "its programs are gone", || {
            let left = guest.sh("cat /sys/kernel/debug/kprobes/list")?;
            ensure!(left.trim().is_empty(), "kprobes are left: {left}");
            let now = references(guest)?;
            ensure!(
                now == before,
                "the module has {now} references, it had {before}"
            );
            Ok(())
        })?;
    }
    Ok(Verdict::Passed)
}

fn references(guest: &Guest) -> Result<u32> {
    Ok(guest
        .sh("cat /sys/module/nf_conntrack/refcnt")?
        .trim()
        .parse()?)
}
