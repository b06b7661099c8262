//! The state directory on a disk that loses power.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::faults::power::{Disk, Entry};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::{JOURNAL, SHORT, SHORTER, STATE, UDP_TIMEOUT, USUAL, forget, is_set, measured};
use crate::agent::{Agent, verb};

/// Name, what makes it, and how it is mounted.
const FILE_SYSTEMS: [[&str; 3]; 3] = [
    ["ext4", "mke2fs -q -t ext4 -F", ""],
    ["xfs", "mkfs.xfs -q -f", "-o nouuid"],
    ["btrfs", "mkfs.btrfs -q -f", ""],
];

/// What is known of the treatment at a mark of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is set, and nobody has asked for its end.
    Set,
    /// Nothing is.
    Nothing,
    /// It begins or ends.
    Either,
}

/// Each state that the disk can be in when it loses power: the treatment that was active is undone
/// from it, and none is where none was.
pub(crate) fn what_was_announced_outlasts_a_power_failure(guest: &Guest) -> Result<Verdict> {
    let _site = Site::build(guest)?;
    for [name, mkfs, options] in FILE_SYSTEMS {
        guest.modprobe(name)?;
        outlasts(guest, name, mkfs, options).with_context(|| name.to_owned())?;
    }
    Ok(Verdict::Passed)
}

fn outlasts(guest: &Guest, name: &str, mkfs: &str, options: &str) -> Result<()> {
    forget()?;
    let disk = Disk::create(guest, mkfs)?;
    fs::create_dir_all(STATE).context("make the state directory")?;
    let device = disk.device().display().to_string();
    guest.sh(&format!("mount -t {name} {options} {device} {STATE}"))?;
    guest.sh(&format!("chmod 700 {STATE}"))?;
    disk.mark(guest, "nothing")?;
    for _ in 0..2 {
        // The second one rewrites the journal at its start.
        let mut agent = Agent::start(guest, "")?;
        measured(&agent)?;
        disk.mark(guest, "either")?;
        verb(guest, &SHORTER)?.ok()?;
        is_set(guest, UDP_TIMEOUT, SHORT)?;
        disk.mark(guest, "set")?;
        disk.mark(guest, "either")?;
        verb(guest, &["undo"])?.ok()?;
        is_set(guest, UDP_TIMEOUT, USUAL)?;
        disk.mark(guest, "nothing")?;
        agent.kill()?;
    }
    guest.sh(&format!("umount {STATE}"))?;

    let mut images = disk.images(guest)?;
    let mut known = Known::Nothing;
    let mut seen = BTreeMap::new();
    let mut number = 0;
    while let Some(entry) = images.advance()? {
        number += 1;
        if let Entry::Mark(mark) = &entry {
            known = match mark.as_str() {
                "set" => Known::Set,
                "nothing" => Known::Nothing,
                _ => Known::Either,
            };
        }
        let copy = images.copy()?;
        guest.sh(&format!("mount -t {name} -o loop {options} {copy} {STATE}"))?;
        let journal = fs::read(JOURNAL).unwrap_or_default();
        // The agent says the same of the same journal.
        let is_new = seen.insert((journal, known as u8), number).is_none();
        let outcome = if is_new {
            recovers(guest, known)
        } else {
            Ok(())
        };
        guest.sh(&format!("umount {STATE}"))?;
        outcome.with_context(|| format!("after entry {number} ({known:?})"))?;
    }
    guest.tell(&format!("{name}: {number} states, {} journals", seen.len()))?;
    ensure!(seen.len() > 6, "only {} journals", seen.len());
    images.remove(guest)
}

/// The kernel still has the value that was set: only the disk was off.
fn recovers(guest: &Guest, known: Known) -> Result<()> {
    guest.set_sysctl(UDP_TIMEOUT, SHORT)?;
    let said = verb(guest, &["undo"])?.ok()?;
    let now = guest.sysctl(UDP_TIMEOUT)?;
    guest.set_sysctl(UDP_TIMEOUT, USUAL)?;
    let undone = now == USUAL;
    ensure!(
        undone || said.contains("no treatment is active"),
        "{now} after: {said}"
    );
    match known {
        Known::Set => ensure!(undone, "not undone: {said}"),
        Known::Nothing => ensure!(!undone, "what was not active was undone: {said}"),
        Known::Either => {}
    }
    Ok(())
}
