//! Reads a disk in bursts, so that the page cache takes all memory there is and each burst needs
//! more: what a node does whose working set comes and goes.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Fault;
use super::cgroup::Cgroup;
use crate::guest::{Guest, Process};

/// Where the file system is.
const FOLDER: &str = "/tmp/files";

/// A file that is one hole: it costs no disk a thing, and its pages fill memory as all others do.
const FILE: &str = "/tmp/files/hole";

/// Nobody reads so much.
const SIZE: u64 = 1 << 40;

const PARTS: u32 = 64;

/// As the kernel reckons it for a machine of this size without huge pages, in KiB.
const LEAST_FREE: &str = "3400";

/// As many as let kswapd fall behind.
pub const STORM: usize = 20;

const BURST: usize = 5 << 20;

/// Enough for kswapd to reach its mark.
const PAUSE: Duration = Duration::from_millis(10);

const PIECE: usize = 128 << 10;

/// Makes the file. Nobody reads to its end, so nothing is read again.
pub fn prepare(guest: &Guest) -> Result<()> {
    guest.modprobe("loop")?;
    guest.modprobe("ext4")?;
    // Where huge pages are looked for, much more memory is kept free, and blocks of all sizes are.
    guest.sh("echo never > /sys/kernel/mm/transparent_hugepage/enabled")?;
    guest.set_sysctl("vm.min_free_kbytes", LEAST_FREE)?;
    guest.set_sysctl("vm.watermark_boost_factor", "0")?;
    // What is left for the page cache is soon full.
    guest.sh("dd if=/dev/zero of=/tmp/ballast bs=1M count=240 2>/dev/null")?;
    guest.sh(&format!(
        "truncate -s 1G /tmp/image && mke2fs -F /tmp/image && mkdir {FOLDER} && \
         mount -t ext4 -o loop /tmp/image {FOLDER} && truncate -s {SIZE} {FILE}"
    ))?;
    Ok(())
}

/// Lets kswapd have only what CPU time all others leave, as on a node whose CPUs are overcommitted:
/// it falls behind, and who needs memory has to reclaim it. Until the guard is dropped.
pub fn slow_kswapd(guest: &Guest) -> Result<SlowKswapd<'_>> {
    nice_kswapd(guest, 19)?;
    Ok(SlowKswapd(guest))
}

/// Dropping it gives kswapd its CPU time back.
#[derive(Debug)]
pub struct SlowKswapd<'a>(&'a Guest);

impl Drop for SlowKswapd<'_> {
    fn drop(&mut self) {
        if let Err(error) = nice_kswapd(self.0, 0) {
            println!("{error:#}");
        }
    }
}

fn nice_kswapd(guest: &Guest, nice: u32) -> Result<()> {
    guest
        .sh(&format!("renice -n {nice} -p $(pidof kswapd0)"))
        .map(drop)
}

/// What it does with what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Nothing: several of them have the CPU, and kswapd never catches up.
    None,
    /// Works on it, which takes longer than to read it, so that kswapd can catch up.
    Works,
}

/// Starts it in a cgroup.
pub fn start(guest: &Guest, cgroup: &Cgroup, reads_and: Use) -> Result<Process> {
    Fault::Reads(reads_and).start(guest, cgroup)
}

/// Reads for ever; prints what each burst took, in seconds.
pub(super) fn run(reads_and: Use) -> Result<()> {
    let mut disk = File::open(FILE).with_context(|| format!("open {FILE}"))?;
    // Each has a part of the file of its own.
    let part = u64::from(std::process::id() % PARTS);
    let begin = SeekFrom::Start(part * (SIZE / u64::from(PARTS)));
    disk.seek(begin)
        .with_context(|| format!("seek in {FILE}"))?;
    let mut piece = vec![0; PIECE];
    loop {
        let begun = Instant::now();
        for _ in 0..BURST / PIECE {
            disk.read_exact(&mut piece)
                .with_context(|| format!("read {FILE}"))?;
            if reads_and == Use::Works {
                black_box(digest(&piece));
            }
        }
        writeln!(stdout(), "{:.6}", begun.elapsed().as_secs_f64())?;
        sleep(PAUSE);
    }
}

fn digest(piece: &[u8]) -> u64 {
    let add = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
    piece.iter().fold(0, add)
}
