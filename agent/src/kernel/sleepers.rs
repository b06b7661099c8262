//! Tasks that sleep in an uninterruptible wait, or wait for io_uring, and the kernel path in which
//! they do: `/proc/PID/task/TID/stat`, `stack` and `wchan`.
//!
//! The kernel counts such waits as pressure on I/O wherever they call `io_schedule`: for a local
//! disk, for a server of a network file system, for a daemon of FUSE, and from Linux 6.5 on (5.10.187,
//! 5.15.121, 6.1.39) in `io_cqring_wait` for whatever an io_uring is to complete.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    cgroup,
    mounts::{self, Mount},
};

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
    /// A server of Lustre.
    Lustre,
    /// A node of GPFS (IBM Storage Scale).
    Gpfs,
    /// A server of BeeGFS.
    BeeGfs,
    /// Another node of OCFS2, which has a lock.
    Ocfs2,
    /// Another node of GFS2, which has a lock.
    Gfs2,
    /// A server of AFS.
    Afs,
    /// A server of OrangeFS.
    OrangeFs,
    /// A completion of io_uring.
    IoUring,
    /// Anything else, a local disk for example.
    Other,
    /// The kernel did not show it to this process.
    Hidden,
}

impl Place {
    /// Beginnings of function names; one such function on the stack is enough. OCFS2 and GFS2 share
    /// a lock manager, so that only their own functions tell them apart.
    const FUNCTIONS: [(Self, &'static [&'static str]); 12] = [
        (Self::Nfs, &["nfs", "rpc_", "__rpc_", "nlmclnt_"]),
        (Self::Smb, &["cifs_", "smb2_", "SMB2_", "smb3_"]),
        (Self::Ceph, &["ceph_", "__ceph_"]),
        (
            Self::Fuse,
            &["fuse_", "__fuse_", "request_wait_answer", "virtio_fs_"],
        ),
        (Self::P9, &["p9_", "v9fs_"]),
        // `ll_` alone is the block layer's, too (`ll_back_merge_fn`).
        (
            Self::Lustre,
            &[
                "ptlrpc_",
                "ldlm_",
                "mdc_",
                "lmv_",
                "osc_",
                "lov_",
                "vvp_",
                "cl_sync_io_wait",
            ],
        ),
        (Self::Gpfs, &["cxi", "gpfs_", "mmfs"]),
        (
            Self::BeeGfs,
            &["FhgfsOps", "Fhgfs", "MessagingTk_", "beegfs_"],
        ),
        (Self::Ocfs2, &["ocfs2_", "__ocfs2_", "o2net_"]),
        (Self::Gfs2, &["gfs2_", "gdlm_"]),
        (Self::Afs, &["afs_", "rxrpc_"]),
        (Self::OrangeFs, &["orangefs_", "service_operation"]),
    ];

    /// Whether somebody beyond this node's own disks answers for it.
    pub fn is_remote(self) -> bool {
        !matches!(self, Self::IoUring | Self::Other | Self::Hidden)
    }

    /// Where a task sleeps that can be interrupted, and waits for completions: the compiler puts
    /// `io_cqring_wait` into its caller (observed on 5.10 and 6.1).
    fn is_idle_io_uring(wchan: &str) -> bool {
        wchan.starts_with("io_cqring_wait") || wchan.ends_with("_sys_io_uring_enter")
    }

    /// Whether tasks of a mount of this type wait there.
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
            Self::Lustre => file_system == "lustre",
            Self::Gpfs => file_system == "gpfs",
            Self::BeeGfs => matches!(file_system, "beegfs" | "beegfs_nodev" | "fhgfs"),
            Self::Ocfs2 => file_system == "ocfs2",
            Self::Gfs2 => file_system == "gfs2",
            Self::Afs => matches!(file_system, "afs" | "openafs"),
            Self::OrangeFs => matches!(file_system, "pvfs2" | "orangefs"),
            Self::IoUring | Self::Other | Self::Hidden => false,
        }
    }

    /// By the type of a file's file system.
    fn of_file_system(name: &str) -> Option<Self> {
        let mut all = Self::FUNCTIONS.into_iter().map(|(place, _)| place);
        all.find(|place| place.is_of(name))
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
    /// Their cgroup of version 2; empty where it is not known.
    pub cgroup: String,
    /// The mount of the file that they read or write, where the system call tells.
    #[serde(default)]
    pub mount: Option<Mount>,
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
    let mut groups: BTreeMap<(Place, String, String, Option<Mount>), u64> = BTreeMap::new();
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
            let task = task.ok().map(|task| task.path());
            let Some((place, command, task)) = task.and_then(sleeps) else {
                continue;
            };
            let (place, mount) = with_file(place, &process, &task);
            // A thread may be in another cgroup than its process.
            let cgroup = cgroup::v2_path_in(&task.join("cgroup"));
            let cgroup = cgroup.or_else(|| cgroup::v2_path_in(&process.join("cgroup")));
            let cgroup = cgroup.unwrap_or_default();
            *groups.entry((place, command, cgroup, mount)).or_default() += 1;
        }
    }
    let mut sleepers: Vec<_> = groups
        .into_iter()
        .map(|((place, command, cgroup, mount), tasks)| Sleepers {
            place,
            command,
            cgroup,
            mount,
            tasks,
        })
        .collect();
    sleepers.sort_by_key(|it| std::cmp::Reverse(it.tasks));
    Ok(Sleeping { sleepers, complete })
}

/// A task that waits for a page has no function of the file system on its stack where that called
/// the page cache last: then the file tells which it is.
fn with_file(place: Place, process: &Path, task: &Path) -> (Place, Option<Mount>) {
    if matches!(place, Place::IoUring | Place::Hidden) {
        return (place, None);
    }
    let mounts = files_of_call(task).filter_map(|file| mounts::of_file(process, &file));
    let known = |it: Mount| Some((Place::of_file_system(&it.file_system)?, it));
    match mounts.filter_map(known).next() {
        Some((of_file, mount)) if place == Place::Other || place == of_file => {
            (of_file, Some(mount))
        }
        Some(_) | None => (place, None),
    }
}

/// The files that the first arguments of a task's system call are descriptors of: `read` has one,
/// `sendfile` two. proc_pid_syscall(5): number and arguments, or `-1` or `running`.
fn files_of_call(task: &Path) -> impl Iterator<Item = PathBuf> {
    const MOST: u64 = 1 << 20;
    let call = fs::read_to_string(task.join("syscall")).unwrap_or_default();
    let arguments = call.split_whitespace().skip(1).take(2);
    let numbers: Vec<_> = arguments
        .filter_map(|it| u64::from_str_radix(it.trim_start_matches("0x"), 16).ok())
        .filter(|number| *number < MOST)
        .collect();
    let descriptors = task.join("fd");
    let file = move |number| fs::read_link(descriptors.join(u64::to_string(&number))).ok();
    numbers
        .into_iter()
        .filter_map(file)
        .filter(|file| file.is_absolute())
}

/// Where a task sleeps, and its command, if it is one to be told.
fn sleeps(task: PathBuf) -> Option<(Place, String, PathBuf)> {
    let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
    let (command, state) = command_and_state(&read("stat"))?;
    let wchan = read("wchan");
    let place = match state {
        'D' => {
            let stack = read("stack");
            Place::of(functions(&stack).chain(known(&wchan)))
        }
        'S' if known(&wchan).any(Place::is_idle_io_uring) => Place::IoUring,
        // Linux 5.10 tells no task's wchan on x86-64, where it has no frame pointers.
        'S' if known(&wchan).next().is_none()
            && functions(&read("stack")).any(Place::is_idle_io_uring) =>
        {
            Place::IoUring
        }
        _ => return None,
    };
    Some((place, command, task))
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

/// For fuzzing: files of a task.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "task",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = command_and_state(&text);
        let _ = Place::of(functions(&text).chain(known(&text)));
    },
    seeds: &[
        b"12 (a) b) D 1 12 12 0 -1",
        b"[<0>] nfs_wait_bit_killable+0x1d/0x70 [nfs]\n[<0>] io_schedule+0x42/0x70\n",
        b"folio_wait_bit_common",
    ],
};

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
            16,
            &[
                ("stat", "16 (old) S 1"),
                ("wchan", "__do_sys_io_uring_enter"),
            ],
        );
        let waits = "[<0>] io_run_task_work_sig+0x1/0x2\n[<0>] __do_sys_io_uring_enter+0x1/0x2\n";
        let files = [("stat", "18 (old) S 1"), ("wchan", "0"), ("stack", waits)];
        task(proc, 18, &files);
        // It submits, which takes it to the disk.
        let submits = "[<0>] blk_mq_get_tag+0x1/0x2\n[<0>] __do_sys_io_uring_enter+0x1/0x2\n";
        task(proc, 17, &[("stat", "17 (db) D 1"), ("stack", submits)]);
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
        assert!(found[..2].contains(&(Place::Nfs, "cp", 2)), "{found:?}");
        for one in [
            (Place::Nfs, "a) b", 1),
            (Place::Other, "db", 2),
            (Place::IoUring, "srv", 1),
            (Place::IoUring, "old", 2),
            (Place::Fuse, "fs", 1),
            (Place::Hidden, "gone", 1),
        ] {
            assert!(found.contains(&one), "{one:?} is not in {found:?}");
        }
        assert_eq!(found.len(), 7);
    }

    #[test]
    fn servers_and_clusters_of_all_kinds_are_told_and_the_block_layer_is_none() {
        let of = |functions: &[&str]| Place::of(functions.iter().copied());
        for (place, functions) in [
            (Place::Lustre, &["ptlrpc_set_wait", "ll_xattr_list"][..]),
            (Place::Gpfs, &["cxiWaitEventWait"]),
            (
                Place::BeeGfs,
                &["wait_woken", "FhgfsOpsRemoting_statDirect"],
            ),
            (Place::Ocfs2, &["__wait_for_common", "__ocfs2_cluster_lock"]),
            (Place::Gfs2, &["gfs2_glock_wait"]),
            (Place::Afs, &["rxrpc_wait_to_be_connected"]),
            (Place::Fuse, &["virtio_fs_enqueue_req"]),
            (Place::Other, &["blk_mq_get_tag", "ll_back_merge_fn"]),
        ] {
            assert_eq!(of(functions), place, "{functions:?}");
        }
        for (place, file_system) in [
            (Place::Lustre, "lustre"),
            (Place::Fuse, "virtiofs"),
            (Place::BeeGfs, "beegfs"),
        ] {
            assert_eq!(Place::of_file_system(file_system), Some(place));
        }
        assert_eq!(Place::of_file_system("ext4"), None);
        assert!(!Place::Other.is_remote() && Place::Gfs2.is_remote());
    }

    #[test]
    fn the_file_tells_what_the_stack_does_not() {
        let proc = tempfile::tempdir().unwrap();
        let proc = proc.path();
        let page = "[<0>] folio_wait_bit_common+0x1/0x2\n[<0>] filemap_read+0x1/0x2\n";
        let mounts = "22 1 0:21 / / rw - ext4 /dev/vda rw\n\
                      90 22 0:55 / /data rw - fuse.sshfs host:/a rw\n";
        for (pid, file, call) in [(7, "/data/x", "0 0x3 0x0"), (8, "/var/y", "40 0x1 0x3")] {
            task(
                proc,
                pid,
                &[("stat", "7 (cat) D 1"), ("stack", page), ("syscall", call)],
            );
            fs::write(proc.join(format!("{pid}/mountinfo")), mounts).unwrap();
            let descriptors = proc.join(format!("{pid}/task/{pid}/fd"));
            fs::create_dir(&descriptors).unwrap();
            std::os::unix::fs::symlink(file, descriptors.join("3")).unwrap();
            std::os::unix::fs::symlink("pipe:[1]", descriptors.join("1")).unwrap();
        }
        let found = find_in(proc, Instant::now() + Duration::from_secs(60)).unwrap();
        let of = |place| found.sleepers.iter().find(|it| it.place == place).unwrap();
        let mount = of(Place::Fuse).mount.as_ref().unwrap();
        assert_eq!(mount.source, "host:/a");
        assert_eq!(of(Place::Other).mount, None);
    }

    #[test]
    fn a_look_that_is_cut_says_so() {
        let proc = tempfile::tempdir().unwrap();
        task(proc.path(), 7, &[("stat", "7 (a) D 1")]);
        let found = find_in(proc.path(), Instant::now()).unwrap();
        assert_eq!(found, Sleeping::default());
    }
}
