//! The state directory on a disk that is full, or can only be read.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::{
    ACTIVE, JOURNAL, SHORT, SHORTER, STATE, UDP_TIMEOUT, USUAL, forget, is_set, last, measured,
};
use crate::agent::{Agent, SOON, verb};

/// On a tmpfs, and on a file system that has no `fallocate(2)`.
pub(crate) fn a_full_disk_keeps_nothing_in_force(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    let tmpfs = "mount -t tmpfs -o size=1m,mode=700 state";
    on(guest, tmpfs, || is_undone_on_a_full_disk(guest)).context("on a tmpfs")?;
    guest.modprobe("loop")?;
    guest.modprobe("ext4")?;
    guest.sh("dd if=/dev/zero of=/tmp/disk bs=1k count=4096 2>/dev/null")?;
    guest.sh("mke2fs -F /tmp/disk > /dev/null")?;
    let ext2 = "mount -t ext4 -o loop /tmp/disk";
    on(guest, ext2, || is_undone_on_a_full_disk(guest)).context("without fallocate")?;
    on(guest, tmpfs, || is_undone_on_a_read_only_disk(guest)).context("on a read-only tmpfs")?;
    Ok(Verdict::Passed)
}

/// Those of nodes: what is held in reserve must be enough where each write takes a new block, too.
pub(crate) fn other_file_systems_may_be_full_too(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    guest.modprobe("loop")?;
    guest.sh("mkdir -p /tmp/full && mount -t tmpfs -o size=100% full /tmp/full")?;
    for (name, mkfs, size) in [
        ("ext4", "mke2fs -q -t ext4 -F", "16M"),
        ("xfs", "mkfs.xfs -q -f", "320M"),
        ("btrfs", "mkfs.btrfs -q -f", "128M"),
    ] {
        guest.modprobe(name)?;
        guest.sh(&format!(
            "rm -f /tmp/full/disk && truncate -s {size} /tmp/full/disk && {mkfs} /tmp/full/disk >&2"
        ))?;
        let mount = format!("mount -t {name} -o loop /tmp/full/disk");
        on(guest, &mount, || {
            guest.sh(&format!("chmod 700 {STATE}"))?;
            is_undone_on_a_full_disk(guest)
        })
        .with_context(|| name.to_owned())?;
    }
    guest.sh("umount /tmp/full")?;
    Ok(Verdict::Passed)
}

fn on(guest: &Guest, mount: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    forget()?;
    guest.sh(&format!("mkdir -p {STATE} && {mount} {STATE}"))?;
    let outcome = work();
    guest.sh(&format!("umount {STATE}"))?;
    outcome
}

fn treated(guest: &Guest) -> Result<Agent> {
    let agent = Agent::start(guest, "")?;
    measured(&agent)?;
    verb(guest, &SHORTER)?.ok()?;
    is_set(guest, UDP_TIMEOUT, SHORT)?;
    is_active(&agent, 1.0)?;
    Ok(agent)
}

fn is_active(agent: &Agent, wanted: f64) -> Result<()> {
    agent.shows("whether it is active", SOON, |metrics| {
        let active = metrics.value(ACTIVE, &[("treatment", "udp_timeout")])?;
        ensure!(active == wanted, "{active}");
        Ok(())
    })
}

/// Not one more byte.
pub(crate) fn fill(guest: &Guest) -> Result<()> {
    for size in ["4k", "1k", "1"] {
        guest.try_sh(&format!(
            "dd if=/dev/zero of={STATE}/filler-{size} bs={size}"
        ))?;
    }
    let more = fs::write(format!("{STATE}/more"), "x");
    ensure!(more.is_err(), "the disk is not full");
    Ok(())
}

/// Takes away what [`fill`] has put there.
pub(crate) fn free(guest: &Guest) -> Result<()> {
    guest.sh(&format!("rm -f {STATE}/filler-*")).map(drop)
}

fn is_undone_on_a_full_disk(guest: &Guest) -> Result<()> {
    let mut agent = treated(guest)?;
    fill(guest)?;
    agent.kill()?;

    let mut agent = Agent::start(guest, "")?;
    ensure!(last(guest)?["state"] == "applied", "{}", last(guest)?);
    is_set(guest, UDP_TIMEOUT, SHORT)?;
    is_active(&agent, 1.0)?;
    let undone = verb(guest, &["undo"])?.ok()?;
    ensure!(!undone.contains("not recorded"), "{undone}");
    is_set(guest, UDP_TIMEOUT, USUAL)?;
    is_active(&agent, 0.0)?;
    agent.kill()?;

    let mut agent = Agent::start(guest, "")?;
    measured(&agent)?;
    ensure!(last(guest)?["state"] == "undone", "{}", last(guest)?);
    is_refused_in_the_end(guest)?;
    is_set(guest, UDP_TIMEOUT, USUAL)?;
    is_active(&agent, 0.0)?;
    agent.kill()?;
    let nothing = verb(guest, &["undo"])?.ok()?;
    ensure!(nothing.contains("no treatment is active"), "{nothing}");
    is_readable()
}

/// Whole blocks are held, so there may be room for one or two more.
fn is_refused_in_the_end(guest: &Guest) -> Result<()> {
    for _ in 0..9 {
        let output = verb(guest, &SHORTER)?;
        if !output.status.success() {
            ensure!(
                output.status.code() == Some(2) && output.stderr.contains("No space left"),
                "{output:?}"
            );
            return Ok(());
        }
        is_set(guest, UDP_TIMEOUT, SHORT)?;
        let undone = verb(guest, &["undo"])?.ok()?;
        ensure!(!undone.contains("not recorded"), "{undone}");
        is_set(guest, UDP_TIMEOUT, USUAL)?;
    }
    bail!("it was never refused");
}

fn is_readable() -> Result<()> {
    let journal = fs::read_to_string(JOURNAL).context("read the journal")?;
    for line in journal.trim_end_matches('\0').lines() {
        let line: serde_json::Value = serde_json::from_str(line).context("a line is no JSON")?;
        ensure!(line.is_object(), "{line}");
    }
    Ok(())
}

fn is_undone_on_a_read_only_disk(guest: &Guest) -> Result<()> {
    let mut agent = treated(guest)?;
    agent.kill()?;
    guest.sh(&format!("mount -o remount,ro {STATE}"))?;
    let undo = || {
        is_set(guest, UDP_TIMEOUT, SHORT)?;
        let undone = verb(guest, &["undo"])?.ok()?;
        is_set(guest, UDP_TIMEOUT, USUAL)?;
        let note = undone.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(note.contains("undone, but not recorded"), "{undone}");
        Ok(())
    };
    let mut agent = Agent::start(guest, "")?;
    undo().context("through an agent that could make no socket there")?;
    is_active(&agent, 0.0)?;
    agent.kill()?;
    // The journal does not know of it.
    guest.set_sysctl(UDP_TIMEOUT, SHORT)?;
    undo().context("without an agent")?;

    let mut agent = Agent::start(guest, "")?;
    measured(&agent)?;
    is_set(guest, UDP_TIMEOUT, USUAL)?;
    is_active(&agent, 0.0)?;
    agent.kill()?;
    Ok(())
}
