//! The guest's slow disk, and what makes others wait for it.

use anyhow::Result;

use crate::guest::Guest;

/// Where its file system is.
pub const FOLDER: &str = "/tmp/slow";

/// Makes a file system on it that is small enough to be made soon.
pub fn mount(guest: &Guest) -> Result<()> {
    guest.modprobe("virtio_blk")?;
    guest.modprobe("ext4")?;
    guest.sh(&format!(
        "mke2fs -F /dev/vda 65536 > /dev/null && mkdir {FOLDER} && mount -t ext4 /dev/vda {FOLDER}"
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
