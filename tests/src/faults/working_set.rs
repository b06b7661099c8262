//! Works in more memory, or more of a file, than its cgroup may have: what it needs next was let go
//! a moment ago, and is read back.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

use super::Fault;
use super::cgroup::Cgroup;
use super::disk;
use crate::guest::{Guest, Process};

/// What it works in.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Its own memory, which goes to swap.
    Memory,
    /// A file on the slow disk.
    File,
}

/// What its cgroup may have, as `memory.max` has it. The pages that fit in are used again and again,
/// so that the kernel knows those that it lets go as part of a working set: it does not take a read of
/// others for a wait for memory (mm/workingset.c).
pub const LIMIT: &str = "4194304";

const SIZE: usize = 5 << 20;

const PAGE: usize = 4096;

const PAGES: u64 = (SIZE / PAGE) as u64;

fn file() -> String {
    format!("{}/working-set", disk::FOLDER)
}

/// Makes the file, on the disk that is mounted.
pub fn prepare_file(guest: &Guest) -> Result<()> {
    let (path, pages) = (file(), PAGES);
    // What is in the page cache already belongs to another cgroup.
    guest.sh(&format!(
        "dd if=/dev/zero of={path} bs={PAGE} count={pages} conv=fsync 2>/dev/null && \
         echo 1 > /proc/sys/vm/drop_caches"
    ))?;
    Ok(())
}

/// Starts it in a cgroup.
pub fn start(guest: &Guest, cgroup: &Cgroup, kind: Kind) -> Result<Process> {
    Fault::WorksIn(kind).start(guest, cgroup)
}

/// Works for ever.
pub(super) fn run(kind: Kind) -> Result<()> {
    match kind {
        Kind::Memory => {
            let mut memory = vec![1_u8; SIZE];
            for page in pages() {
                memory[page * PAGE] = black_box(memory[page * PAGE]).wrapping_add(1);
            }
        }
        Kind::File => {
            let path = file();
            let file = File::open(&path).with_context(|| format!("open {path}"))?;
            let mut piece = [0; PAGE];
            for page in pages() {
                let read = file.read_exact_at(&mut piece, (page * PAGE) as u64);
                read.with_context(|| format!("read {path}"))?;
            }
        }
    }
    Ok(())
}

/// All in their order, then without any, and without an end.
fn pages() -> impl Iterator<Item = usize> {
    let mut state = 1_u64;
    let any = std::iter::repeat_with(move || {
        // Knuth's, of which the upper bits are good.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % PAGES
    });
    (0..PAGES).chain(any).map(|page| page as usize)
}
