//! The network namespaces of the node, and how many entries each has.
//!
//! `nf_conntrack_max` is held against the count of each namespace by itself
//! (nf_conntrack_core.c, `__nf_conntrack_alloc`), so one of them can be full
//! while the others are empty.

use std::{
    collections::BTreeMap,
    fs, io,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::stat::read_entries;

/// Looking at every process of a node costs milliseconds, so it is not done at
/// each tick.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);

/// Namespaces that are watched at the most; a node seldom has more pods.
const MAX_NAMESPACES: usize = 512;

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

/// The namespaces that were found at the last scan.
#[derive(Debug, Default)]
pub struct Namespaces {
    scanned: Option<Instant>,
    /// A process for each.
    processes: BTreeMap<u32, u32>,
}

impl Namespaces {
    /// Counts the entries of each namespace that a process lives in. One whose
    /// processes have all gone since the last scan is left out.
    pub fn count(&mut self) -> Vec<Namespace> {
        if self.scanned.is_none_or(|at| at.elapsed() >= SCAN_INTERVAL) {
            self.processes = scan();
            self.scanned = Some(Instant::now());
        }
        self.processes
            .iter()
            .filter(|(netns, pid)| of(&pid.to_string()).is_ok_and(|now| now == **netns))
            .filter_map(|(netns, pid)| {
                let entries = read_entries(*pid).ok()?;
                Some(Namespace {
                    netns: *netns,
                    pid: *pid,
                    entries,
                })
            })
            .collect()
    }
}

/// Inode number of the network namespace of a process.
pub(super) fn of(process: &str) -> io::Result<u32> {
    let path = format!("/proc/{process}/ns/net");
    let link = fs::read_link(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("read {path}: {error}")))?;
    parse(&link.to_string_lossy()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("read {path}: {link:?} names no namespace"),
        )
    })
}

fn parse(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn scan() -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    for process in processes.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that has gone, or is not ours to look at, is no error.
        let Ok(netns) = of(&format!("{pid}")) else {
            continue;
        };
        if found.len() < MAX_NAMESPACES || found.contains_key(&netns) {
            found.entry(netns).or_insert(pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_names_its_namespace() {
        assert_eq!(parse("net:[4026531840]"), Some(4_026_531_840));
        assert_eq!(parse("mnt:[4026531840]"), None);
        assert_eq!(parse("net:[]"), None);
    }

    #[test]
    fn our_own_namespace_is_among_those_found() {
        let own = of("self").expect("every process has one");
        assert!(scan().contains_key(&own));
    }
}
