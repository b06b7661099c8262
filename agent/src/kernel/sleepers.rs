//! Tasks that sleep in an uninterruptible wait, or wait for io_uring, and the kernel path in which
//! they do: `/proc/PID/task/TID/stat`, `stack` and `wchan`.
//!
//! The kernel counts such waits as pressure on I/O wherever they call `io_schedule`: for a local
//! disk, for a server of a network file system, for a daemon of FUSE, and from Linux 6.5 on (5.10.187,
//! 5.15.121, 6.1.39) in `io_cqring_wait` for whatever an io_uring is to complete.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::cgroup;

/// What a sleeping task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A server of NFS.
    Nfs,
    /// A server of SMB.
    Smb,
    /// A server of Ceph.
    Ceph,
    /// A daemon of FUSE.
    Fuse,
    /// A server of 9P, often the hypervisor.
    P9,
    /// A completion of io_uring.
    IoUring,
    /// Anything else, a local disk for example.
    Other,
    /// The kernel did not show it to this process.
    Hidden,
}

impl Place {
    /// What the names of functions begin with, of which one is on the stack.
    const FUNCTIONS: [(Self, &'static [&'static str]); 6] = [
        (Self::Nfs, &["nfs", "rpc_", "__rpc_"]),
        (Self::Smb, &["cifs_", "smb2_", "SMB2_", "smb3_"]),
        (Self::Ceph, &["ceph_", "__ceph_"]),
        (Self::Fuse, &["fuse_", "__fuse_", "request_wait_answer"]),
        (Self::P9, &["p9_", "v9fs_"]),
        (Self::IoUring, &["io_cqring_wait"]),
    ];

    /// Types of mounts whose tasks wait there, as `/proc/PID/mountinfo` has them.
    pub fn is_of(self, file_system: &str) -> bool {
        match self {
            Self::Nfs => matches!(file_system, "nfs" | "nfs4"),
            Self::Smb => matches!(file_system, "cifs" | "smb3"),
            Self::Ceph => file_system == "ceph",
            Self::Fuse => {
                matches!(file_system, "fuse" | "fuseblk" | "virtiofs")
                    || file_system.starts_with("fuse.")
            }
            Self::P9 => file_system == "9p",
            Self::IoUring | Self::Other | Self::Hidden => false,
        }
    }

    /// By the functions of a stack, the innermost first.
    fn of<'f>(functions: impl Iterator<Item = &'f str>) -> Self {
        let mut any = false;
        for function in functions {
            any = true;
            let mut known = Self::FUNCTIONS.into_iter();
            let found = known.find(|(_, names)| names.iter().any(|it| function.starts_with(it)));
            if let Some((place, _)) = found {
                return place;
            }
        }
        if any { Self::Other } else { Self::Hidden }
    }
}

/// Tasks of one command in one cgroup that sleep in the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleepers {
    /// What they wait for.
    pub place: Place,
    /// Their command.
    pub command: String,
    /// Their cgroup of version 2, or the first of version 1.
    pub cgroup: String,
    /// How many there are.
    pub tasks: u64,
}

/// What was found at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sleeping {
    /// Most tasks first.
    pub sleepers: Vec<Sleepers>,
    /// Whether all tasks were looked at.
    pub complete: bool,
}

/// Looks at all tasks that this process sees, for at most `limit`.
///
/// # Errors
///
/// Where `/proc` cannot be listed.
pub fn find(limit: Duration) -> io::Result<Sleeping> {
    find_in(Path::new("/proc"), Instant::now() + limit)
}

fn find_in(proc: &Path, deadline: Instant) -> io::Result<Sleeping> {
    let mut groups: BTreeMap<(Place, String, String), u64> = BTreeMap::new();
    let mut complete = true;
    for process in fs::read_dir(proc)? {
        let process = process?.path();
        let name = process.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            continue;
        }
        // A process may end at any time, which is no error.
        for task in fs::read_dir(process.join("task")).into_iter().flatten() {
            if Instant::now() >= deadline {
                complete = false;
                break;
            }
            let Some((place, command)) = task.ok().and_then(|task| sleeps(&task.path())) else {
                continue;
            };
            let cgroup = cgroup::paths_in(&process.join("cgroup")).unwrap_or_default();
            let cgroup = cgroup.into_iter().next_back().unwrap_or_default();
            *groups.entry((place, command, cgroup)).or_default() += 1;
        }
    }
    let mut sleepers: Vec<_> = groups
        .into_iter()
        .map(|((place, command, cgroup), tasks)| Sleepers {
            place,
            command,
            cgroup,
            tasks,
        })
        .collect();
    sleepers.sort_by_key(|it| std::cmp::Reverse(it.tasks));
    Ok(Sleeping { sleepers, complete })
}

/// Where a task sleeps, and its command, if it is one to be told.
fn sleeps(task: &Path) -> Option<(Place, String)> {
    let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
    let (command, state) = command_and_state(&read("stat"))?;
    let wchan = read("wchan");
    let place = match state {
        'D' => {
            let stack = read("stack");
            Place::of(functions(&stack).chain(known(&wchan)))
        }
        'S' => Some(Place::of(known(&wchan))).filter(|place| *place == Place::IoUring)?,
        _ => return None,
    };
    Some((place, command))
}

/// proc_pid_stat(5): number, command in parentheses, state.
fn command_and_state(stat: &str) -> Option<(String, char)> {
    let (_, rest) = stat.split_once('(')?;
    let (command, rest) = rest.rsplit_once(") ")?;
    Some((command.to_owned(), rest.chars().next()?))
}

/// `[<0>] nfs_wait_bit_killable+0x1d/0x70 [nfs]` on each line.
fn functions(stack: &str) -> impl Iterator<Item = &str> {
    stack.lines().filter_map(|line| {
        let (_, function) = line.split_once("] ")?;
        Some(function.split_once('+').map_or(function, |(name, _)| name))
    })
}

/// `0` where the kernel does not tell.
fn known(wchan: &str) -> impl Iterator<Item = &str> {
    Some(wchan.trim())
        .filter(|name| !name.is_empty() && *name != "0")
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(proc: &Path, pid: u32, files: &[(&str, &str)]) {
        let folder = proc.join(format!("{pid}/task/{pid}"));
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        fs::write(
            proc.join(format!("{pid}/cgroup")),
            "1:memory:/old\n0::/pods/a\n",
        )
        .unwrap();
    }

    #[test]
    fn tasks_are_told_by_where_they_sleep() {
        let proc = tempfile::tempdir().unwrap();
        let proc = proc.path();
        let nfs =
            "[<0>] rpc_wait_bit_killable+0x1e/0xa0 [sunrpc]\n[<0>] nfs_file_read+0x9/0x10 [nfs]\n";
        let disk = "[<0>] folio_wait_bit_common+0x13d/0x350\n[<0>] ext4_readpage+0x1/0x2\n";
        task(
            proc,
            7,
            &[("stat", "7 (a) b) D 1"), ("stack", nfs), ("wchan", "0")],
        );
        task(proc, 8, &[("stat", "8 (cp) D 1"), ("stack", nfs)]);
        task(proc, 9, &[("stat", "9 (cp) D 1"), ("stack", nfs)]);
        task(proc, 10, &[("stat", "10 (db) D 1"), ("stack", disk)]);
        task(
            proc,
            11,
            &[("stat", "11 (srv) S 1"), ("wchan", "io_cqring_wait")],
        );
        task(
            proc,
            12,
            &[("stat", "12 (idle) S 1"), ("wchan", "do_epoll_wait")],
        );
        task(
            proc,
            13,
            &[("stat", "13 (fs) D 1"), ("wchan", "request_wait_answer")],
        );
        task(proc, 14, &[("stat", "14 (gone) D 1"), ("wchan", "0")]);
        task(proc, 15, &[("stat", "garbage")]);
        let found = find_in(proc, Instant::now() + Duration::from_secs(60)).unwrap();
        assert!(found.complete);
        let found: Vec<_> = found
            .sleepers
            .iter()
            .map(|it| (it.place, it.command.as_str(), it.tasks))
            .collect();
        assert_eq!(found[0], (Place::Nfs, "cp", 2));
        for one in [
            (Place::Nfs, "a) b", 1),
            (Place::Other, "db", 1),
            (Place::IoUring, "srv", 1),
            (Place::Fuse, "fs", 1),
            (Place::Hidden, "gone", 1),
        ] {
            assert!(found.contains(&one), "{one:?} is not in {found:?}");
        }
        assert_eq!(found.len(), 6);
    }

    #[test]
    fn a_look_that_is_cut_says_so() {
        let proc = tempfile::tempdir().unwrap();
        task(proc.path(), 7, &[("stat", "7 (a) D 1")]);
        let found = find_in(proc.path(), Instant::now()).unwrap();
        assert_eq!(found, Sleeping::default());
    }
}
