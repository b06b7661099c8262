//! A disk, and all that it can hold after a power failure.
//!
//! `dm-log-writes` records each write when the disk has been told to make it last: at the next flush
//! behind it, or at once if it was forced (Documentation/admin-guide/device-mapper/log-writes.rst).
//! So what comes first in the record, up to any place, is a disk that lost all that was not synced.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{SeekFrom, seek};

use crate::guest::Guest;

/// Where the disk, its record and its images are: in memory, where holes take none.
const FOLDER: &str = "/tmp/power";

/// XFS takes no smaller one.
const DISK_BYTES: u64 = 320 << 20;
const RECORD_BYTES: u64 = 512 << 20;
const SECTOR: u64 = 512;

/// What of a copy is left out if it is zero.
const CHUNK: usize = 16 << 10;

/// Of drivers/md/dm-log-writes.c.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// A disk with a file system; each write to it is recorded.
#[derive(Debug)]
pub struct Disk {
    device: PathBuf,
    disk: String,
    record: String,
}

impl Disk {
    /// Makes it with the file system that this command makes. The record begins with what is
    /// written after that.
    pub fn create(guest: &Guest, mkfs: &str) -> Result<Self> {
        for module in ["loop", "dm_log_writes"] {
            guest.modprobe(module)?;
        }
        guest.sh(&format!(
            "mkdir -p {FOLDER} && mount -t tmpfs -o size=100% power {FOLDER}"
        ))?;
        let [disk, record] =
            [("disk", DISK_BYTES), ("record", RECORD_BYTES)].map(|(name, size)| {
                let path = path(name);
                File::create(&path)?.set_len(size)?;
                Ok::<_, io::Error>(path)
            });
        let (disk, record) = (disk?, record?);
        guest.sh(&format!("{mkfs} {disk} >&2"))?;
        // The images begin with what was there before the record.
        copy(Path::new(&disk), Path::new(&path("image")))?;
        let attach = |file: &str| {
            let device = guest.sh(&format!("losetup -f --show {file}"))?;
            anyhow::Ok(device.trim().to_owned())
        };
        let (disk, record) = (attach(&disk)?, attach(&record)?);
        let sectors = DISK_BYTES / SECTOR;
        guest.sh(&format!(
            "dmsetup create recorded --noudevrules --noudevsync \
             --table '0 {sectors} log-writes {disk} {record}'"
        ))?;
        let name = guest.sh("dmsetup info -c --noheadings -o blkdevname recorded")?;
        Ok(Self {
            device: Path::new("/dev").join(name.trim()),
            disk,
            record,
        })
    }

    /// What to mount.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Names this moment in the record.
    pub fn mark(&self, guest: &Guest, name: &str) -> Result<()> {
        guest.sh(&format!("dmsetup message recorded 0 mark {name}"))?;
        Ok(())
    }

    /// Ends it; it must not be mounted any more. What it can have held from then on.
    pub fn images(self, guest: &Guest) -> Result<Images> {
        let Self { disk, record, .. } = self;
        guest.sh(&format!(
            "dmsetup remove recorded --noudevrules --noudevsync && losetup -d {disk} {record}"
        ))?;
        Images::open()
    }
}

/// What the disk can have held, one state after the other.
#[derive(Debug)]
pub struct Images {
    record: File,
    image: File,
    /// Where the next entry begins.
    at: u64,
    left: u64,
}

/// What an entry of the record was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Written,
    Mark(String),
}

impl Images {
    fn open() -> Result<Self> {
        let record = File::open(path("record")).context("open the record")?;
        let [magic, version, entries, sector] = words(&record, 0)?;
        ensure!(
            (magic, version, sector & 0xffff_ffff) == (MAGIC, VERSION, SECTOR),
            "no record: {magic:#x}, version {version}, sectors of {sector}"
        );
        let image = OpenOptions::new().write(true).open(path("image"));
        Ok(Self {
            record,
            image: image.context("open the image")?,
            at: SECTOR,
            left: entries,
        })
    }

    /// Goes on by one entry; `None` at the end.
    pub fn advance(&mut self) -> Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let [sector, sectors, flags, length] = words(&self.record, self.at)?;
        let head = self.at + 32;
        self.at += SECTOR;
        if flags & MARK != 0 {
            let mut name = vec![0; usize::try_from(length)?];
            self.record.read_exact_at(&mut name, head)?;
            let name = String::from_utf8(name).context("a mark that is no text")?;
            return Ok(Some(Entry::Mark(name.trim_end_matches('\0').to_owned())));
        }
        // What was discarded may still be there.
        if flags & DISCARD == 0 {
            let mut data = vec![0; usize::try_from(sectors * SECTOR)?];
            self.record.read_exact_at(&mut data, self.at)?;
            self.image.write_all_at(&data, sector * SECTOR)?;
            self.at += sectors * SECTOR;
        }
        Ok(Some(Entry::Written))
    }

    /// A copy of the present one, to be mounted: that changes it.
    pub fn copy(&self) -> Result<String> {
        let to = path("copy");
        copy(Path::new(&path("image")), Path::new(&to))?;
        Ok(to)
    }

    /// Removes all of it.
    pub fn remove(self, guest: &Guest) -> Result<()> {
        drop(self);
        guest.sh(&format!("umount {FOLDER}"))?;
        Ok(())
    }
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

/// Four numbers of a head.
fn words(file: &File, at: u64) -> Result<[u64; 4]> {
    let mut bytes = [0; 32];
    file.read_exact_at(&mut bytes, at)
        .with_context(|| format!("read the record at {at}"))?;
    let mut words = bytes.chunks_exact(8).map(|word| {
        let mut number = [0; 8];
        number.copy_from_slice(word);
        u64::from_le_bytes(number)
    });
    Ok(std::array::from_fn(|_| words.next().unwrap_or_default()))
}

/// Copies what is not zero.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).with_context(|| format!("open {}", from.display()))?;
    let size = source.metadata()?.len();
    let target = File::create(to).with_context(|| format!("create {}", to.display()))?;
    target.set_len(size)?;
    let mut at = 0;
    // ENXIO: nothing but a hole is left.
    while let Ok(begin) = seek(&source, SeekFrom::Data(at)) {
        let end = seek(&source, SeekFrom::Hole(begin))?;
        let mut data = vec![0; usize::try_from(end - begin)?];
        source.read_exact_at(&mut data, begin)?;
        let chunks = (begin..).step_by(CHUNK).zip(data.chunks(CHUNK));
        for (at, chunk) in chunks.filter(|(_, it)| it.iter().any(|byte| *byte != 0)) {
            target.write_all_at(chunk, at)?;
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_copy_has_the_holes_and_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        let file = File::create(&from).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(b"here", 300_000).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
    }
}
