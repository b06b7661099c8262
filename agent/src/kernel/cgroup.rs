//! Control groups: where their trees are mounted, and what the second version's files
//! say (Documentation/admin-guide/cgroup-v2.rst).

mod files;
mod names;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::{
    files::{Buffers, Files, Folder, children},
    names::{place, shown, unescape},
};
use super::{machine::pairs, mounts};

/// The cgroups of a process, as paths in their trees: one of version 2, and one of each
/// hierarchy of version 1.
///
/// # Errors
///
/// When the process has gone, or cannot be seen.
pub fn of_process(pid: u32) -> io::Result<Vec<String>> {
    paths_in(Path::new(&format!("/proc/{pid}/cgroup")))
}

/// The same of a process with this file `cgroup`.
pub(super) fn paths_in(file: &Path) -> io::Result<Vec<String>> {
    fs::read(file).map(|text| paths(&shown(OsStr::from_bytes(&text))))
}

/// The cgroup of version 2 in such a file, below the root of the tree; `None` where the process has
/// none, or where it is outside of this process's cgroup namespace and shows as `/..`.
pub(super) fn v2_path_in(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    (!path.starts_with("/..")).then(|| path.to_owned())
}

/// cgroups(7): number, controllers, path.
fn paths(cgroups: &str) -> Vec<String> {
    let paths = cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2));
    paths.map(str::to_owned).collect()
}

/// What is mounted of cgroups, as this process sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchies {
    /// Root of the tree of version 2, the one that shows most.
    pub v2: Option<PathBuf>,
    /// Controllers of version 1. Version 2 has none of these.
    pub v1: Vec<String>,
    /// Root of the tree of version 1 that has the CPU controller, the one that shows most.
    #[serde(default)]
    pub cpu_v1: Option<PathBuf>,
}

impl Hierarchies {
    /// Looks at the mounts of this process.
    ///
    /// # Errors
    ///
    /// The path and the kernel's error.
    pub fn find() -> io::Result<Self> {
        const PATH: &str = "/proc/self/mountinfo";
        match mounts::read(Path::new(PATH)) {
            Ok(mounts) => Ok(Self::parse(&mounts)),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("read {PATH}: {error}"),
            )),
        }
    }

    pub(super) fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        let (mut best, mut best_v1) = (0, 0);
        for line in mounts::lines(mountinfo) {
            match line.file_system {
                "cgroup2" => {
                    if let Some(height) = height(line.root).filter(|height| *height > best) {
                        best = height;
                        found.v2 = Some(line.place());
                    }
                }
                "cgroup" => {
                    let own: Vec<_> = controllers(line.options).collect();
                    let height = height(line.root).filter(|height| *height > best_v1);
                    if let Some(height) = height.filter(|_| own.iter().any(|it| it == "cpu")) {
                        best_v1 = height;
                        found.cpu_v1 = Some(line.place());
                    }
                    found.v1.extend(own);
                }
                _ => {}
            }
        }
        found.v1.sort_unstable();
        found.v1.dedup();
        found
    }
}

/// How much of the tree a mount shows, if it shows its root. In a cgroup namespace the
/// own cgroup is `/`, and a mount that came from the host shows as `/..`, `/../..`.
fn height(root: &str) -> Option<usize> {
    let above = Path::new(root).components().skip(1);
    let above: Vec<_> = above.collect();
    above
        .iter()
        .all(|part| *part == Component::ParentDir)
        .then_some(above.len() + 1)
}

/// Options that are no flag of the file system: `rw,cpu,cpuacct`.
fn controllers(options: &str) -> impl Iterator<Item = String> {
    const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "blkio"];
    let options = options.split(',');
    options
        .filter(|option| CONTROLLERS.contains(option))
        .map(str::to_owned)
}

/// `cpu.stat`, since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStat {
    /// Time on a CPU, with that of the cgroups below.
    pub usage: Duration,
    /// Periods of its quota in which it ran; zero without a quota.
    pub periods: u64,
    /// Periods at whose end the quota was used up; zero without a quota.
    pub throttled_periods: u64,
    /// Time for which its run queues were kept from running, of all CPUs together.
    pub throttled: Duration,
}

impl CpuStat {
    fn parse(text: &str) -> Self {
        let mut stat = Self::default();
        for (name, value) in pairs(text) {
            match name {
                "usage_usec" => stat.usage = Duration::from_micros(value),
                "nr_periods" => stat.periods = value,
                "nr_throttled" => stat.throttled_periods = value,
                "throttled_usec" => stat.throttled = Duration::from_micros(value),
                // Of version 1, in nanoseconds.
                "throttled_time" => stat.throttled = Duration::from_nanos(value),
                _ => {}
            }
        }
        stat
    }
}

/// What a cgroup's memory does: counters since it was made, and what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStat {
    /// Bytes charged to it and to the cgroups below.
    pub current: u64,
    /// `memory.high`, bytes.
    pub high: Option<u64>,
    /// `memory.max`, bytes.
    pub max: Option<u64>,
    /// How often this cgroup's own `memory.high` made its tasks reclaim.
    pub high_events: u64,
    /// How often this cgroup's own `memory.max` did.
    pub max_events: u64,
    /// How often no memory could be found within its own limit.
    pub oom_events: u64,
    /// Page faults.
    pub faults: u64,
    /// Pages needed again soon after they had been reclaimed.
    pub refaults: u64,
    /// Pages that were reclaimed from it.
    pub reclaimed: u64,
    /// Pages that were looked at for that.
    pub scanned: u64,
    /// Bytes of file pages that were not used lately: what reclaim finds without swap.
    pub inactive_file: Option<u64>,
    /// Bytes that wait to be written to disk, or are being written.
    pub dirty: u64,
}

/// `max` is no number.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// What a cgroup has read and written; as a limit, what it may in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer<T> {
    /// Bytes read.
    pub read_bytes: T,
    /// Bytes written.
    pub written_bytes: T,
    /// Requests to read.
    pub reads: T,
    /// Requests to write.
    pub writes: T,
}

/// What a cgroup has read and written, by `major:minor`.
pub type IoStat = BTreeMap<String, Transfer<u64>>;

/// What a cgroup may read and write in a second, by `major:minor`.
pub type IoMax = BTreeMap<String, Transfer<Option<u64>>>;

/// `8:0 rbytes=1 wbytes=2 rios=…` on each line; a line may have a number alone.
fn parse_io(text: &str) -> IoStat {
    devices(text, |value| {
        Some(Transfer {
            read_bytes: value("rbytes=")?,
            written_bytes: value("wbytes=")?,
            reads: value("rios=")?,
            writes: value("wios=")?,
        })
    })
}

/// `8:0 rbps=1048576 wbps=max riops=max wiops=max`; a device without limits has no line.
fn parse_io_max(text: &str) -> IoMax {
    devices(text, |value| {
        Some(Transfer {
            read_bytes: value("rbps="),
            written_bytes: value("wbps="),
            reads: value("riops="),
            writes: value("wiops="),
        })
    })
}

/// What is said of each device, from what asks for the number behind a key.
fn devices<T>(
    text: &str,
    parse: impl Fn(&dyn Fn(&str) -> Option<u64>) -> Option<T>,
) -> BTreeMap<String, T> {
    let device = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let value = |key: &str| {
            let value = rest.split(' ').find_map(|pair| pair.strip_prefix(key))?;
            value.parse().ok()
        };
        Some((device.to_owned(), parse(&value)?))
    };
    text.lines().filter_map(device).collect()
}

/// Whether this is what reading a cgroup gives that has gone in between
/// (fs/kernfs/file.c: `ENODEV`).
pub fn has_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// For fuzzing: files of cgroups.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "cgroup",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = (CpuStat::parse(&text), parse_io(&text), parse_io_max(&text), number(&text));
        let shown = shown(OsStr::from_bytes(bytes));
        let _ = unescape(&shown);
        let _ = paths(&text);
    },
    seeds: &[
        b"usage_usec 5\nuser_usec 4\nsystem_usec 1\nnr_periods 9\nnr_throttled 3\nthrottled_usec 77\n",
        b"8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
        b"8:16 rbps=2097152 wbps=max riops=max wiops=120\n",
        b"12:cpu,cpuacct:/a\n0::/kubepods.slice/a\\x2db.scope\n",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(mountinfo: &str) -> Option<String> {
        let place = Hierarchies::parse(mountinfo).v2;
        place.map(|place| place.display().to_string())
    }

    #[test]
    fn the_unified_tree_is_found_and_nothing_is_of_version_1() {
        let mounts = "22 27 0:21 / /sys rw - sysfs sysfs rw\n\
                      31 22 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(v2(mounts).as_deref(), Some("/sys/fs/cgroup"));
        assert!(Hierarchies::parse(mounts).v1.is_empty());
    }

    #[test]
    fn a_hybrid_has_both_and_says_which_controllers_version_2_lacks() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(v2(mounts).as_deref(), Some("/sys/fs/cgroup/unified"));
        let found = Hierarchies::parse(mounts);
        assert_eq!(found.v1, ["cpu", "cpuacct", "memory"]);
        assert_eq!(found.cpu_v1, Some(PathBuf::from("/sys/fs/cgroup/cpu")));
    }

    #[test]
    fn in_a_container_the_hosts_tree_is_preferred_to_the_own() {
        let mounts = "90 80 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
                      91 80 0:27 /../../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw\n\
                      92 80 0:27 /../other /elsewhere ro - cgroup2 cgroup rw\n";
        assert_eq!(v2(mounts).as_deref(), Some("/host/sys/fs/cgroup"));
        assert_eq!(
            v2("92 80 0:27 /a /elsewhere ro - cgroup2 cgroup rw\n"),
            None
        );
    }

    #[test]
    fn garbled_mounts_are_none() {
        for garbled in ["", "1 2 3", "a - b", " - cgroup2", "1 2 3 4 - cgroup2 x y"] {
            assert_eq!(Hierarchies::parse(garbled), Hierarchies::default());
        }
    }

    #[test]
    fn cpu_and_io_are_read_and_what_is_garbled_is_left_out() {
        let text = "usage_usec 2000000\nuser_usec 1\nnr_periods 9\nnr_throttled 4\n\
                    throttled_usec 500000\nx\n";
        let stat = CpuStat::parse(text);
        assert_eq!(stat.usage, Duration::from_secs(2));
        assert_eq!((stat.periods, stat.throttled_periods), (9, 4));
        assert_eq!(stat.throttled, Duration::from_millis(500));
        let io = parse_io("253:0 rbytes=10 wbytes=20 rios=1 wios=2\n7:0\n8:0 rbytes=x wbytes=1\n");
        let transfer = Transfer {
            read_bytes: 10,
            written_bytes: 20,
            reads: 1,
            writes: 2,
        };
        assert_eq!(io, IoStat::from([("253:0".to_owned(), transfer)]));
        let max = parse_io_max("253:0 rbps=1048576 wbps=max riops=max wiops=120\n");
        let transfer = Transfer {
            read_bytes: Some(1 << 20),
            writes: Some(120),
            ..Transfer::default()
        };
        assert_eq!(max, IoMax::from([("253:0".to_owned(), transfer)]));
        assert_eq!(parse_io_max("\n253:0\n\0"), IoMax::new());
    }

    #[test]
    fn a_task_is_in_a_cgroup_of_version_2_where_that_is_seen() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let of = |text: &str| {
            fs::write(file.path(), text).expect("written");
            v2_path_in(file.path())
        };
        assert_eq!(
            of("1:memory:/old\n0::/pods/a\n").as_deref(),
            Some("/pods/a")
        );
        assert_eq!(of("1:memory:/old\n"), None);
        assert_eq!(of("0::/../pods/a\n"), None);
    }

    #[test]
    fn a_process_is_in_a_cgroup_of_each_hierarchy() {
        let both = "4:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c:d\n";
        assert_eq!(paths(both), ["/a", "/b", "/c:d"]);
        assert_eq!(paths("garbage\n"), Vec::<String>::new());
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cgroup");
        fs::write(&file, b"0::/a\xff/b\n1:name=systemd:/c\n").expect("written");
        assert_eq!(paths_in(&file).expect("read"), [r"/a\xff/b", "/c"]);
        assert!(of_process(std::process::id()).is_ok());
        assert!(of_process(u32::MAX).is_err());
    }
}
