//! The files of a cgroup, each read by one call into a buffer that is used again, below a
//! descriptor of the folder above. A path from the root would be resolved for each file: with
//! 64 characters of a container's name that is a third of what reading costs.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
    time::Duration,
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};

use super::{CpuStat, IoMax, IoStat, MemoryStat, number, parse_io, parse_io_max};
use crate::kernel::{
    machine::{cpu_list, pairs},
    pressure::{self, Resource, Stall},
};

/// What a file begins to be read into. No file of a cgroup is longer, but for `io.stat` and
/// `memory.numa_stat` of large machines.
const BUFFER: usize = 16 << 10;

/// The open folder of a cgroup.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens the root of a tree.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens one right below.
    ///
    /// # Errors
    ///
    /// The kernel's: `NotFound` where the cgroup has gone.
    pub fn below(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(openat(&self.0, name, FOLDER, Mode::empty())?))
    }

    /// How many cgroups are right below one of this folder's: a folder has a link from each of its
    /// own (fs/kernfs/inode.c, `kernfs_refresh_inode`). `None` where the file system does not
    /// count those.
    ///
    /// # Errors
    ///
    /// As [`Self::below`].
    pub fn count_below(&self, name: &OsStr) -> io::Result<Option<usize>> {
        let links = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?.st_nlink;
        Ok(usize::try_from(links)
            .ok()
            .and_then(|links| links.checked_sub(2)))
    }

    /// Calls this for each cgroup right below, with the number of its folder, which is the id of the
    /// cgroup (fs/kernfs/dir.c, `kernfs_fop_readdir`).
    ///
    /// # Errors
    ///
    /// As [`Self::below`].
    pub fn each(&self, buffers: &mut Buffers, mut f: impl FnMut(&OsStr, u64)) -> io::Result<()> {
        // A descriptor of its own: a folder is read from where the last reading of it ended.
        let fd = openat(&self.0, c".", FOLDER, Mode::empty())?;
        buffers.text.clear();
        let mut folder = RawDir::new(fd, buffers.text.spare_capacity_mut());
        while let Some(entry) = folder.next() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => {
                    let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                _ => false,
            };
            if is_folder {
                f(name, entry.ino());
            }
        }
        Ok(())
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// What paths and files are written into, again and again.
#[derive(Debug)]
pub struct Buffers {
    path: Vec<u8>,
    text: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            path: Vec::new(),
            text: Vec::with_capacity(BUFFER),
        }
    }
}

/// The names of the cgroups right below one.
///
/// # Errors
///
/// The kernel's: `NotFound` where the cgroup has gone.
pub fn children(cgroup: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    let add = |name: &OsStr, _| names.push(OsString::from_vec(name.as_bytes().to_vec()));
    Folder::open(cgroup)?.each(&mut Buffers::default(), add)?;
    Ok(names)
}

/// The files of a cgroup.
#[derive(Debug)]
pub struct Files<'f> {
    /// The folder of the cgroup above.
    pub above: &'f Folder,
    /// The name of this one's folder.
    pub name: &'f OsStr,
    /// Where its files are read into.
    pub buffers: &'f mut Buffers,
}

impl Files<'_> {
    fn read(&mut self, file: &str) -> io::Result<&str> {
        let Buffers { path, text } = &mut *self.buffers;
        path.clear();
        path.extend_from_slice(self.name.as_bytes());
        path.push(b'/');
        path.extend_from_slice(file.as_bytes());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(self.above.0.as_fd(), path.as_slice(), flags, Mode::empty())?;
        text.clear();
        loop {
            let room = text.capacity() - text.len();
            let read = rustix::io::read(&file, rustix::buffer::spare_capacity(text))?;
            // The kernel gives the whole file at once, if there is room (fs/seq_file.c,
            // `seq_read_iter`).
            if read < room {
                break;
            }
            text.reserve(text.capacity());
        }
        str::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn number(&mut self, file: &str) -> Option<u64> {
        number(self.read(file).ok()?)
    }

    /// `cpu.stat`, and in version 1 `cpuacct.usage` beside it, where that controller is mounted with
    /// it.
    ///
    /// # Errors
    ///
    /// The kernel's: `NotFound` or `ENODEV` where the cgroup has gone.
    pub fn cpu(&mut self) -> io::Result<CpuStat> {
        let text = self.read("cpu.stat")?;
        let mut stat = CpuStat::parse(text);
        if !text.contains("usage_usec") {
            stat.usage = Duration::from_nanos(self.number("cpuacct.usage").unwrap_or(0));
        }
        Ok(stat)
    }

    /// A pressure file.
    ///
    /// # Errors
    ///
    /// As [`pressure::read`].
    pub fn pressure(&mut self, resource: Resource) -> io::Result<Stall> {
        let stall = pressure::parse(self.read(resource.of_cgroup())?);
        stall.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The CPUs that a cgroup's quota is worth, of either version; `None` without one.
    pub fn quota(&mut self) -> Option<f64> {
        let (quota, period) = match self.read("cpu.max") {
            Ok(text) => {
                let (quota, period) = text.trim().split_once(' ')?;
                (number(quota)?, number(period)?)
            }
            // Without a quota it is -1.
            Err(_) => (
                self.number("cpu.cfs_quota_us")?,
                self.number("cpu.cfs_period_us")?,
            ),
        };
        (period > 0).then_some(quota as f64 / period as f64)
    }

    /// The CPUs that tasks of a cgroup may use; `None` where it has no set of its own.
    pub fn allowed_cpus(&mut self) -> Option<BTreeSet<u32>> {
        let list = self.read("cpuset.cpus.effective").ok()?;
        cpu_list(list).filter(|cpus| !cpus.is_empty())
    }

    /// The files of the memory controller.
    ///
    /// # Errors
    ///
    /// As [`Self::cpu`], and where the controller is not enabled for the cgroup.
    pub fn memory(&mut self) -> io::Result<MemoryStat> {
        let mut stat = MemoryStat::default();
        for (name, value) in pairs(self.read("memory.stat")?) {
            match name {
                "pgfault" => stat.faults = value,
                "pgsteal" => stat.reclaimed = value,
                "pgscan" => stat.scanned = value,
                "inactive_file" => stat.inactive_file = Some(value),
                "file_dirty" | "file_writeback" => stat.dirty = stat.dirty.saturating_add(value),
                _ if name.starts_with("workingset_refault") => {
                    stat.refaults = stat.refaults.saturating_add(value);
                }
                _ => {}
            }
        }
        // The root has neither of these.
        stat.current = self.number("memory.current").unwrap_or(0);
        stat.high = self.number("memory.high");
        stat.max = self.number("memory.max");
        for (name, value) in pairs(self.read("memory.events.local").unwrap_or_default()) {
            match name {
                "high" => stat.high_events = value,
                "max" => stat.max_events = value,
                "oom" => stat.oom_events = value,
                _ => {}
            }
        }
        Ok(stat)
    }

    /// `io.stat`.
    ///
    /// # Errors
    ///
    /// As [`Self::memory`].
    pub fn io(&mut self) -> io::Result<IoStat> {
        self.read("io.stat").map(parse_io)
    }

    /// `io.max`; empty without a limit.
    pub fn io_max(&mut self) -> IoMax {
        parse_io_max(self.read("io.max").unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// One cgroup, `pod`, of ordinary files.
    struct Fake {
        root: tempfile::TempDir,
        buffers: Buffers,
    }

    impl Fake {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a folder");
            fs::create_dir(root.path().join("pod")).expect("made");
            Self {
                root,
                buffers: Buffers::default(),
            }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.root.path().join("pod").join(name), text).expect("written");
        }

        fn read<T>(&mut self, read: impl FnOnce(&mut Files<'_>) -> T) -> T {
            let above = Folder::open(self.root.path()).expect("it is there");
            read(&mut Files {
                above: &above,
                name: OsStr::new("pod"),
                buffers: &mut self.buffers,
            })
        }
    }

    #[test]
    fn memory_has_its_own_limits_events_and_not_those_of_cgroups_below() {
        let mut fake = Fake::new();
        let missing = fake
            .read(|it| it.memory())
            .expect_err("it has no such file");
        assert!(super::super::has_gone(&missing), "{missing}");
        fake.write(
            "memory.stat",
            "file_dirty 4096\nfile_writeback 4096\npgfault 7\npgsteal 3\npgsteal_direct 99\n\
             workingset_refault_anon 1\nworkingset_refault_file 2\n",
        );
        fake.write("memory.high", "1048576\n");
        fake.write("memory.max", "max\n");
        fake.write(
            "memory.events.local",
            "low 0\nhigh 5\nmax 6\noom 1\noom_kill 0\n",
        );
        fake.write("memory.events", "high 999\n");
        let stat = fake.read(|it| it.memory()).expect("it is there");
        assert_eq!((stat.high, stat.max), (Some(1 << 20), None));
        assert_eq!(
            (stat.high_events, stat.max_events, stat.oom_events),
            (5, 6, 1)
        );
        assert_eq!((stat.faults, stat.refaults, stat.reclaimed), (7, 3, 3));
        assert_eq!(stat.dirty, 8192);
    }

    #[test]
    fn a_quota_is_in_cpus_and_max_is_none() {
        let mut fake = Fake::new();
        let mut quota_of = |text: &str| {
            fake.write("cpu.max", text);
            fake.read(|it| it.quota())
        };
        assert_eq!(quota_of("20000 100000\n"), Some(0.2));
        assert_eq!(quota_of("max 100000\n"), None);
        assert_eq!(quota_of("5 0\n"), None);
        assert_eq!(quota_of("garbage\n"), None);
    }

    /// Debian 12 with systemd.unified_cgroup_hierarchy=0.
    #[test]
    fn version_1_has_the_same_in_other_files() {
        let mut fake = Fake::new();
        fake.write(
            "cpu.stat",
            "nr_periods 9\nnr_throttled 4\nthrottled_time 500000000\n",
        );
        fake.write("cpuacct.usage", "2000000000\n");
        fake.write("cpu.cfs_quota_us", "20000\n");
        fake.write("cpu.cfs_period_us", "100000\n");
        let stat = fake.read(|it| it.cpu()).expect("it is there");
        assert_eq!((stat.periods, stat.throttled_periods), (9, 4));
        assert_eq!(stat.throttled, Duration::from_millis(500));
        assert_eq!(stat.usage, Duration::from_secs(2));
        assert_eq!(fake.read(|it| it.quota()), Some(0.2));
        fake.write("cpu.cfs_quota_us", "-1\n");
        assert_eq!(fake.read(|it| it.quota()), None);
    }

    #[test]
    fn a_file_that_is_longer_than_the_buffer_is_read_to_its_end() {
        let mut fake = Fake::new();
        let line = |i: u32| format!("8:{i} rbytes=1 wbytes=2 rios=3 wios={i}\n");
        let lines: String = (0..2_000).map(line).collect();
        assert!(lines.len() > 2 * BUFFER);
        fake.write("io.stat", &lines);
        let stat = fake.read(|it| it.io()).expect("it is there");
        assert_eq!((stat.len(), stat["8:1999"].writes), (2_000, 1_999));
        // A shorter file after it has nothing of it.
        fake.write("io.stat", "8:1 rbytes=1 wbytes=2 rios=3 wios=4\n");
        assert_eq!(fake.read(|it| it.io()).expect("it is there").len(), 1);
    }

    #[test]
    fn one_that_has_gone_is_told_from_garbage() {
        let mut fake = Fake::new();
        let gone = fake.read(|it| it.cpu()).expect_err("it has no such file");
        assert!(super::super::has_gone(&gone), "{gone}");
        let path = fake.root.path().join("pod/cpu.stat");
        fs::write(path, [0xff, 0, b'\n']).expect("written");
        let garbage = fake.read(|it| it.cpu()).expect_err("it is no text");
        assert!(!super::super::has_gone(&garbage), "{garbage}");
    }

    #[test]
    fn folders_below_are_counted_and_listed_and_files_are_not() {
        let fake = Fake::new();
        fake.write("cpu.stat", "");
        let pod = fake.root.path().join("pod");
        let count = |root: &Path| {
            let folder = Folder::open(root).expect("it is there");
            folder.count_below(OsStr::new("pod")).expect("it is there")
        };
        // Some file systems do not count, and none counts wrong.
        assert!(matches!(count(fake.root.path()), Some(0) | None));
        for name in ["a", "b"] {
            fs::create_dir(pod.join(name)).expect("made");
        }
        assert!(matches!(count(fake.root.path()), Some(2) | None));
        let mut names = children(&pod).expect("it is there");
        names.sort_unstable();
        assert_eq!(names, ["a", "b"]);
    }
}
