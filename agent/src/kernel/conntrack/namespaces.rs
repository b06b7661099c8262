//! How many entries each network namespace has.
//!
//! `nf_conntrack_max` is held against the count of each namespace by itself
//! (nf_conntrack_core.c, `__nf_conntrack_alloc`), so one of them can be full
//! while the others are empty.

use serde::{Deserialize, Serialize};

use super::stat::read_entries;
use crate::kernel::netns::Namespaces;

/// Entries of one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number, as in `/proc/<pid>/ns/net`.
    pub netns: u32,
    /// A process in it, by which an operator can enter it (`nsenter -t PID -n`).
    pub pid: u32,
    /// Entries in its table now.
    pub entries: u64,
}

/// Counts the entries of each namespace that a process lives in.
pub fn count(namespaces: &mut Namespaces) -> Vec<Namespace> {
    let entries = |(netns, pid)| {
        Some(Namespace {
            netns,
            pid,
            entries: read_entries(pid).ok()?,
        })
    };
    namespaces.living().filter_map(entries).collect()
}
