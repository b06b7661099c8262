//! Treatments on real sysctls: what they change, who else may, and what is left when the agent is
//! killed.

pub(crate) mod disk;
mod power;

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use crate::agent::{Agent, SOON, verb};
use crate::udp_conntrack::{MAX, UDP_TIMEOUT};

pub(crate) use disk::{a_full_disk_keeps_nothing_in_force, other_file_systems_may_be_full_too};
pub(crate) use power::what_was_announced_outlasts_a_power_failure;

/// What the kernel sets the timeout to, and what the treatment does.
const USUAL: &str = "30";
const SHORT: &str = "7";
const ACTIVE: &str = "nodemedic_treatment_active";
const DRIFT: &str = "nodemedic_treatment_drift_total";

pub(crate) const STATE: &str = "/run/nodemedic";
pub(crate) const JOURNAL: &str = "/run/nodemedic/journal";

/// Settings with which the load of these scenarios fills the table.
const FILLS: &str = "table_filling_ratio = 0.55\ntable_filling_within = \"1s\"\n\
                     idle_entries_usage_ratio = 0.55\nscan_interval = \"1s\"\n";

/// For one that does not have to help: the node is healthy.
const SHORTER: [&str; 6] = [
    "treat",
    "udp_conntrack",
    "--treatment",
    "udp_timeout",
    "--apply",
    "--force",
];

/// An agent without a past.
fn start(guest: &Guest, settings: &str) -> Result<Agent> {
    forget()?;
    let agent = Agent::start(guest, settings)?;
    measured(&agent)?;
    Ok(agent)
}

fn forget() -> Result<()> {
    if fs::exists(STATE)? {
        fs::remove_dir_all(STATE).context("forget what was")?;
    }
    Ok(())
}

fn measured(agent: &Agent) -> Result<()> {
    eventually(SOON, "there is a reading", || {
        ensure!(!agent.report()?["reading"].is_null(), "there is none");
        Ok(())
    })
}

/// How the last treatment stands.
fn last(guest: &Guest) -> Result<Value> {
    let courses: Value = serde_json::from_str(&verb(guest, &["status", "--json"])?.ok()?)?;
    let last = courses.as_array().and_then(|courses| courses.last());
    last.cloned().context("nothing was treated")
}

fn is_set(guest: &Guest, key: &str, value: &str) -> Result<()> {
    let now = guest.sysctl(key)?;
    ensure!(now == value, "{key} is {now}, not {value}");
    Ok(())
}

/// DNS entries under a steady load, before and while the agent treats them by itself: at most half,
/// and the finding is over. When the agent ends, the timeout is back.
pub(crate) fn entries_fall_to_half_and_the_agents_end_undoes(guest: &Guest) -> Result<Verdict> {
    const A_SECOND: u32 = 40;
    const TIMEOUT: &str = "20";
    let site = Site::build(guest)?;
    // Not 30, so that the end of what stands already is sooner seen.
    guest.set_sysctl(UDP_TIMEOUT, TIMEOUT)?;
    // So many seconds of the load are above the limit of 0.55, and yet no packet wants an entry in
    // vain.
    guest.set_sysctl(MAX, "1050")?;
    // A scan of the table has the kernel drop what has expired, which it does seldom by itself.
    guest.modprobe("nf_conntrack_netlink")?;
    let settings = &format!(
        "{FILLS}[treatment_policy]\nwatch = \"35s\"\n[treatments]\nudp_timeout = \"auto\""
    );
    forget()?;
    let mut agent = Agent::start_whole(guest, "udp_conntrack", settings)?;
    measured(&agent)?;
    site.while_asking(A_SECOND, || {
        let applied = eventually(3 * SOON, "it is treated", || {
            let last = last(guest)?;
            ensure!(last["state"] == "applied", "{last}");
            Ok(last)
        })?;
        let sick = entries(guest)?;
        ensure!(applied["trigger"]["by"] == "auto", "{applied}");
        is_set(guest, UDP_TIMEOUT, SHORT)?;
        let kept = eventually(3 * SOON, "it is kept", || {
            let last = last(guest)?;
            ensure!(last["state"] != "applied", "{last}");
            Ok(last)
        })?;
        ensure!(kept["state"] == "confirmed", "{kept}");
        eventually(SOON, "half as many entries", || {
            let treated = entries(guest)?;
            ensure!(treated * 2 <= sick, "{sick} entries, treated {treated}");
            Ok(())
        })?;
        agent.finds(&[], SOON)?;
        Ok(())
    })?;
    agent.shows("that it is active", SOON, |metrics| {
        let active = metrics.value(ACTIVE, &[("treatment", "udp_timeout")])?;
        ensure!(active == 1.0, "{active}");
        Ok(())
    })?;
    let status = agent.process().stop(SOON)?;
    ensure!(status.success(), "the agent ends with {status}");
    is_set(guest, UDP_TIMEOUT, TIMEOUT)?;
    ensure!(last(guest)?["ending"] == "agent_ended", "{}", last(guest)?);
    the_next_agent_resumes(guest, settings)?;
    Ok(Verdict::Passed)
}

/// As in an upgrade: the next agent sets it again at once, and its own end puts back what was.
fn the_next_agent_resumes(guest: &Guest, settings: &str) -> Result<()> {
    let before = guest.sysctl(UDP_TIMEOUT)?;
    let mut next = Agent::start_whole(guest, "udp_conntrack", settings)?;
    eventually(SOON, "it is resumed", || is_set(guest, UDP_TIMEOUT, SHORT))?;
    let resumed = last(guest)?;
    ensure!(
        resumed["id"] == 1 && resumed["state"] == "confirmed",
        "{resumed}"
    );
    let status = next.process().stop(SOON)?;
    ensure!(status.success(), "the agent ends with {status}");
    is_set(guest, UDP_TIMEOUT, &before)
}

/// A file that sets the key is named before anything is begun. Once it was applied while the agent
/// runs, the key is left alone but by force, and is put back to what the file has set.
pub(crate) fn another_writer_is_named_and_not_overruled(guest: &Guest) -> Result<Verdict> {
    const FILE: &str = "/etc/sysctl.d/60-dns.conf";
    const THEIRS: &str = "19";
    let site = Site::build(guest)?;
    guest.set_sysctl(UDP_TIMEOUT, "20")?;
    guest.set_sysctl(MAX, "1050")?;
    guest.modprobe("nf_conntrack_netlink")?;
    let agent = start(
        guest,
        &format!("{FILLS}[treatment_policy]\ncooldown = \"0s\""),
    )?;
    let treat = |how: &[&str]| verb(guest, &[&SHORTER[..4], how].concat());
    site.while_asking(40, || {
        let dry_run = eventually(3 * SOON, "it would be treated", || {
            treat(&["--dry-run"])?.ok()
        })?;
        ensure!(!dry_run.contains(FILE), "nobody writes: {dry_run}");
        treat(&["--apply"])?.ok()?;
        is_set(guest, UDP_TIMEOUT, SHORT)?;
        verb(guest, &["undo"])?.ok()?;
        is_set(guest, UDP_TIMEOUT, "20")?;

        fs::create_dir_all("/etc/sysctl.d").context("make a folder for sysctls")?;
        fs::write(FILE, format!("{UDP_TIMEOUT} = {THEIRS}\n")).context("write their file")?;
        let dry_run = treat(&["--dry-run", "--force"])?.ok()?;
        ensure!(dry_run.contains(FILE), "the file is not named: {dry_run}");
        guest.sh(&format!("sysctl -p {FILE}"))?;
        eventually(3 * SOON, "it is left alone", || {
            let refused = treat(&["--dry-run"])?;
            ensure!(
                refused.status.code() == Some(2) && refused.stderr.contains(FILE),
                "{refused:?}"
            );
            Ok(())
        })?;
        treat(&["--apply", "--force"])?.ok()?;
        is_set(guest, UDP_TIMEOUT, SHORT)?;
        verb(guest, &["undo"])?.ok()?;
        is_set(guest, UDP_TIMEOUT, THEIRS)
    })?;
    fs::remove_file(FILE).context("remove their file")?;
    drop(agent);
    Ok(Verdict::Passed)
}

/// Those that have not expired: to list them drops the others, which the kernel counts for as long as
/// it does not come upon them.
fn entries(guest: &Guest) -> Result<u32> {
    let lines = guest.sh("conntrack -L 2>/dev/null | wc -l")?;
    Ok(lines.trim().parse()?)
}

/// Nothing is changed by a dry run, nor by what is unknown; what somebody sets back is set again
/// until it is too often; what somebody sets to something else is theirs; where nothing can be
/// written it says so.
pub(crate) fn others_are_respected(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    let agent = start(guest, "[treatment_policy]\nreapply = 1")?;
    verb(guest, &[&SHORTER[..4], &["--force"]].concat())?.ok()?;
    is_set(guest, UDP_TIMEOUT, "30")?;
    let healthy = verb(guest, &SHORTER[..5])?;
    ensure!(healthy.status.code() == Some(2), "{healthy:?}");
    let unknown = verb(guest, &["treat", "udp_contrack", "--apply"])?;
    ensure!(
        unknown.status.code() == Some(64) && unknown.stderr.contains("udp_conntrack"),
        "{unknown:?}"
    );
    is_set(guest, UDP_TIMEOUT, "30")?;

    verb(guest, &SHORTER)?.ok()?;
    is_set(guest, UDP_TIMEOUT, SHORT)?;
    guest.set_sysctl(UDP_TIMEOUT, "30")?;
    eventually(SOON, "it is set again", || {
        is_set(guest, UDP_TIMEOUT, SHORT)
    })?;
    guest.set_sysctl(UDP_TIMEOUT, "30")?;
    eventually(SOON, "it is given up", || {
        let last = last(guest)?;
        ensure!(last["state"] == "overridden", "{last}");
        Ok(())
    })?;
    is_set(guest, UDP_TIMEOUT, "30")?;
    agent.shows("both times", SOON, |metrics| {
        let drift = metrics.value(DRIFT, &[("treatment", "udp_timeout")])?;
        ensure!(drift == 2.0, "{drift}");
        Ok(())
    })?;

    verb(guest, &SHORTER)?.ok()?;
    let file = "/etc/sysctl.d/60-dns.conf";
    guest.sh(&format!(
        "mkdir -p /etc/sysctl.d && echo {UDP_TIMEOUT}=17 > {file}"
    ))?;
    guest.sh(&format!("sysctl -p {file}"))?;
    eventually(SOON, "it is somebody else's", || {
        let last = last(guest)?;
        ensure!(last["state"] == "overridden", "{last}");
        ensure!(last["why"].to_string().contains(file), "{last}");
        Ok(())
    })?;
    fs::remove_file(file).context("remove the file")?;
    is_set(guest, UDP_TIMEOUT, "17")?;
    guest.set_sysctl(UDP_TIMEOUT, "30")?;
    drop(agent);
    nothing_is_written_where_nothing_can_be(guest)?;
    nothing_is_done_that_cannot_be_recorded(guest)
}

fn nothing_is_written_where_nothing_can_be(guest: &Guest) -> Result<Verdict> {
    guest.sh("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys")?;
    let outcome = (|| {
        let _agent = start(guest, "")?;
        let failed = verb(guest, &SHORTER)?;
        ensure!(failed.status.code() == Some(2), "{failed:?}");
        let why = last(guest)?["why"].to_string();
        ensure!(why.contains("hostPID"), "{why}");
        ensure!(last(guest)?["state"] == "failed", "{}", last(guest)?);
        Ok(Verdict::Passed)
    })();
    guest.sh("umount /proc/sys")?;
    outcome
}

/// With a full disk under the journal a treatment is refused, as soon as no line of it fits; what
/// was begun before is put back all the same.
fn nothing_is_done_that_cannot_be_recorded(guest: &Guest) -> Result<Verdict> {
    forget()?;
    guest.sh(&format!(
        "mkdir -p {STATE} && mount -t tmpfs -o size=16k,mode=700 state {STATE}"
    ))?;
    let outcome = (|| {
        let agent = Agent::start(guest, "")?;
        measured(&agent)?;
        guest.try_sh(&format!("dd if=/dev/zero of={STATE}/filler bs=1k"))?;
        let mut refused = None;
        while refused.is_none() {
            let output = verb(guest, &SHORTER)?;
            if output.status.success() {
                is_set(guest, UDP_TIMEOUT, SHORT)?;
                verb(guest, &["undo"])?.ok()?;
            } else {
                refused = Some(output);
            }
            is_set(guest, UDP_TIMEOUT, "30")?;
        }
        let refused = refused.context("it was never refused")?;
        ensure!(
            refused.status.code() == Some(2) && refused.stderr.contains("No space left"),
            "{refused:?}"
        );
        drop(agent);
        Ok(Verdict::Passed)
    })();
    guest.sh(&format!("umount {STATE}"))?;
    outcome
}

/// The capabilities with which the DaemonSet treats, for `setpriv`.
const TREATS: &str = "+sys_admin,+net_admin,+sys_ptrace,+sys_resource,+syslog";
/// Those with which it can only observe.
const OBSERVES: &str = "+bpf,+perfmon,+net_admin,+sys_resource,+syslog";

/// A script that runs its arguments as in a container: its files are those of an image and not of the
/// node, /proc/sys is read-only, and it has these capabilities alone.
fn in_container(capabilities: &str) -> String {
    format!(
        "set -e; mount --make-rprivate /; mkdir -p /tmp/image; \
         mount -t tmpfs image /tmp/image; cd /tmp/image; \
         for folder in /*/; do mkdir .$folder; case $folder in \
         /tmp/) mount --bind $folder .$folder;; *) mount --rbind $folder .$folder;; esac; done; \
         mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys; \
         exec chroot . /usr/bin/setpriv --bounding-set=-all,{capabilities} -- \"$@\""
    )
}

/// With the capabilities of an observer nothing in the container can write a sysctl, whatever it
/// tries, and the agent measures: with probes where functions of the kernel itself take fentry.
pub(crate) fn an_observer_cannot_write(guest: &Guest) -> Result<Verdict> {
    const ATTEMPTS: [&str; 4] = [
        "echo 29 > /proc/sys/kernel/panic",
        "echo 29 > /proc/1/root/proc/sys/kernel/panic",
        "mount -o remount,bind,rw /proc/sys",
        "mount -t proc proc /root",
    ];
    let _site = Site::build(guest)?;
    forget()?;
    let panic = guest.sysctl("kernel.panic")?;
    let attempt = |capabilities: &str, command: &str| {
        let script = in_container(capabilities);
        let mut container = Command::new("unshare");
        container.args([
            "--mount", "/bin/sh", "-c", &script, "sh", "/bin/sh", "-c", command,
        ]);
        guest.run(&mut container, SOON)
    };
    for command in ATTEMPTS {
        let output = attempt(OBSERVES, command)?;
        ensure!(!output.status.success(), "an observer can: {command}");
    }
    // That they can succeed.
    for command in &ATTEMPTS[1..] {
        attempt(TREATS, command)?.ok()?;
    }
    guest.set_sysctl("kernel.panic", &panic)?;

    let script = in_container(OBSERVES);
    let container = ["unshare", "--mount", "/bin/sh", "-c", &script, "sh"];
    let agent = Agent::start_under(guest, &container, "")?;
    measured(&agent)?;
    let failed = verb(guest, &SHORTER)?;
    ensure!(failed.status.code() == Some(2), "{failed:?}");
    is_set(guest, UDP_TIMEOUT, "30")?;
    let report = agent.node()?;
    let memory = report["ailments"].as_array().into_iter().flatten();
    let memory = memory.filter(|ailment| ailment["name"] == "psi_stall");
    let mut probes = memory
        .filter_map(|ailment| ailment["probes"].as_array())
        .flatten();
    let hook = probes
        .find(|probe| probe["name"] == "memory")
        .context("a probe on memory")?;
    // On 5.10 and 6.1 the verifier does not take the arguments of this function, and Debian's
    // kernel.perf_event_paranoid leaves no kprobe.
    let fentry = !["5.10", "6.1"].contains(&guest.kernel()?.as_str());
    ensure!(!fentry || hook["hook"] == "fentry", "{hook}");
    Ok(Verdict::Passed)
}

/// As the DaemonSet has it: /proc/sys is mounted read-only, the node's processes are seen, and the
/// capabilities are few. It sets and puts back through what the first process sees.
pub(crate) fn a_container_that_is_not_privileged_treats(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    forget()?;
    let script = in_container(TREATS);
    let container = ["unshare", "--mount", "/bin/sh", "-c", &script, "sh"];
    let agent = Agent::start_under(guest, &container, "")?;
    measured(&agent)?;
    verb(guest, &SHORTER)?.ok()?;
    is_set(guest, UDP_TIMEOUT, SHORT)?;
    verb(guest, &["undo"])?.ok()?;
    is_set(guest, UDP_TIMEOUT, "30")?;
    Ok(Verdict::Passed)
}

/// Whatever a killed agent leaves, of its journal and of the sysctl, the next one or `undo` alone
/// puts back what was there.
pub(crate) fn a_killed_agent_leaves_nothing_in_force(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    let mut agent = start(guest, "")?;
    verb(guest, &SHORTER)?.ok()?;
    agent.kill()?;
    is_set(guest, UDP_TIMEOUT, SHORT)?;
    let status = verb(guest, &["status"])?.ok()?;
    ensure!(status.contains("nodemedic undo"), "{status}");

    let mut agent = Agent::start(guest, "")?;
    ensure!(last(guest)?["state"] == "applied", "{}", last(guest)?);
    is_set(guest, UDP_TIMEOUT, SHORT)?;
    agent.kill()?;
    let journal = fs::read_to_string(JOURNAL).context("read the journal")?;
    verb(guest, &["undo"])?.ok()?;
    is_set(guest, UDP_TIMEOUT, "30")?;

    // Each step that a kill can come after: the line is written or cut short, the value is set or
    // not yet.
    let intended = journal.replacen("\"applied\"", "\"intended\"", 1);
    let cut = &intended[..intended.len() - 20];
    for (step, journal, value) in [
        ("nothing but the head is written", cut, "30"),
        ("the intent is written", &intended, "30"),
        ("the value is set", &intended, SHORT),
        ("that it is set is written", &journal, SHORT),
        ("it is undone, and that is not written", &journal, "30"),
    ] {
        fs::write(JOURNAL, journal).context("write the journal")?;
        guest.set_sysctl(UDP_TIMEOUT, value)?;
        verb(guest, &["undo"])
            .and_then(|undone| undone.ok())
            .with_context(|| format!("after a kill when {step}"))?;
        is_set(guest, UDP_TIMEOUT, "30").with_context(|| step.to_owned())?;
    }

    fs::write(JOURNAL, "{\"nodemedic_journal\":9}\n").context("write the journal")?;
    let newer = verb(guest, &["undo"])?;
    ensure!(
        newer.status.code() == Some(2) && newer.stderr.contains("version 9"),
        "{newer:?}"
    );
    fs::remove_file(JOURNAL).context("remove the journal")?;
    Ok(Verdict::Passed)
}

/// Without an agent `treat` observes, treats, stays, and puts back what it changed at Ctrl-C.
pub(crate) fn without_an_agent_it_stays_until_it_is_told_to_end(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    forget()?;
    let mut arguments = SHORTER.to_vec();
    arguments.extend(["--window", "2s"]);
    let mut treat = guest.start("treat", &mut guest.agent(&arguments)?)?;
    treat.wait_for("applied", 4 * SOON)?;
    is_set(guest, UDP_TIMEOUT, SHORT)?;
    treat.signal(Signal::SIGINT)?;
    let status = treat.wait(2 * SOON)?;
    ensure!(status.success(), "it ends with {status}");
    is_set(guest, UDP_TIMEOUT, "30")?;
    Ok(Verdict::Passed)
}
