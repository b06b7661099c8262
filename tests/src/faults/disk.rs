//! A slow disk in the guest's own time, and what makes others wait for it.
//!
//! `null_blk` keeps the data in memory and answers by the guest's timers, so the disk is as slow to
//! the guest whatever the host does (Documentation/block/null_blk.rst; `mbps` and the other
//! attributes are in drivers/block/null_blk, from 5.10 on).

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::guest::Guest;

/// Where its file system is.
pub const FOLDER: &str = "/tmp/slow";

/// The disk's name in `/dev` and `/proc/diskstats`.
pub const NAME: &str = "nullb0";

/// Where `null_blk` makes a disk of each folder.
pub(crate) const DISKS: &str = "/sys/kernel/config/nullb";

/// As slow as a cloud's cheapest disk, or one that is about to fail: one request at a time, 5 ms
/// each, and 8 MiB/s. The kernel names 5.10's disks by their number and later ones by the folder,
/// which is the same here.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("size", "1024"),
    ("memory_backed", "1"),
    ("queue_mode", "2"),
    ("submit_queues", "1"),
    ("hw_queue_depth", "1"),
    ("irqmode", "2"),
    ("completion_nsec", "5000000"),
    ("mbps", "8"),
    ("power", "1"),
];

/// Makes the disk, which goes when the guest is cleaned up. Its path.
pub fn create(guest: &Guest) -> Result<String> {
    let disk = Path::new(DISKS).join(NAME);
    if !disk.exists() {
        guest.sh("modprobe null_blk nr_devices=0")?;
        fs::create_dir(&disk).with_context(|| format!("make {}", disk.display()))?;
        for (attribute, value) in ATTRIBUTES {
            let path = disk.join(attribute);
            fs::write(&path, value)
                .with_context(|| format!("write {value} to {}", path.display()))?;
        }
    }
    Ok(format!("/dev/{NAME}"))
}

/// Makes a file system on it that is small enough to be made soon.
pub fn mount(guest: &Guest) -> Result<()> {
    let disk = create(guest)?;
    guest.modprobe("ext4")?;
    guest.sh(&format!(
        "mke2fs -F {disk} 65536 > /dev/null && mkdir {FOLDER} && mount -t ext4 {disk} {FOLDER}"
    ))?;
    Ok(())
}

/// A script that writes a file again and again, much faster than the disk does.
pub fn dirty() -> String {
    let write = format!("dd if=/dev/zero of={FOLDER}/big bs=1M count=16 conv=notrunc 2>/dev/null");
    format!("while :; do {write}; done")
}

/// A script that wants a few bytes to be on the disk before it goes on.
pub fn sync() -> String {
    let write = format!("dd if=/dev/zero of={FOLDER}/small bs=4k count=1 conv=fsync 2>/dev/null");
    format!("while :; do {write}; done")
}
