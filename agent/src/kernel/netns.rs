//! The network namespaces of the node, each with a process in it.
//!
//! Procfs shows a namespace through its processes alone, so one that has none (made by
//! `ip netns add`, say) is not found.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::mounts::NODE_ROOT;

/// Looking at every process of a node costs milliseconds, so it is not done at
/// each tick.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);

/// Namespaces that are watched at the most; a node seldom has more pods.
const MAX_NAMESPACES: usize = 512;

/// The namespaces that were found at the last scan.
#[derive(Debug, Default)]
pub struct Namespaces {
    scanned: Option<Instant>,
    /// A process for each.
    processes: BTreeMap<u32, u32>,
}

impl Namespaces {
    /// Each namespace that a process lives in, by its inode number, with such a process.
    /// One whose processes have all gone since the last scan is left out.
    pub fn living(&mut self) -> impl Iterator<Item = (u32, u32)> {
        if self.scanned.is_none_or(|at| at.elapsed() >= SCAN_INTERVAL) {
            self.processes = scan();
            self.scanned = Some(Instant::now());
        }
        self.processes
            .iter()
            .map(|(netns, pid)| (*netns, *pid))
            .filter(|(netns, pid)| of(&pid.to_string()).is_ok_and(|now| now == *netns))
    }
}

/// Inode number of this process's network namespace, as `/proc/self/ns/net` shows.
///
/// # Errors
///
/// Where the link cannot be read or is not of the form `net:[4026531840]`.
pub fn own() -> io::Result<u32> {
    of("self")
}

/// Inode number of a process's network namespace.
///
/// # Errors
///
/// As [`own`].
pub fn of_process(pid: u32) -> io::Result<u32> {
    of(&pid.to_string())
}

/// Inode number of the network namespace that a file holds, as those in /run/netns do; of
/// the node's file where ours is another. `None` where it holds none.
pub fn of_file(path: &Path) -> Option<u32> {
    /// `NSFS_MAGIC` (include/uapi/linux/magic.h).
    const NSFS: i64 = 0x6e73_6673;
    if !path.is_absolute() {
        return None;
    }
    let on_node = PathBuf::from(format!("{NODE_ROOT}{}", path.display()));
    [path, &on_node].into_iter().find_map(|path| {
        let is_namespace = rustix::fs::statfs(path).is_ok_and(|it| it.f_type == NSFS);
        let inode = is_namespace.then(|| fs::metadata(path))?.ok()?.ino();
        u32::try_from(inode).ok()
    })
}

/// Whether a process lives in a network namespace.
///
/// # Errors
///
/// As [`own`].
pub fn is_living(netns: u32) -> io::Result<bool> {
    Ok(own()? == netns || scan().contains_key(&netns))
}

/// Starts a thread of this name that is in a network namespace and goes on by itself.
/// `None` where no process lives there. The thread keeps the namespace.
///
/// # Errors
///
/// As [`own`] and [`within`].
pub fn spawn(
    netns: u32,
    name: &str,
    f: impl FnOnce() + Send + 'static,
) -> io::Result<Option<thread::JoinHandle<()>>> {
    let namespace = if own()? == netns {
        None
    } else {
        match scan().get(&netns) {
            Some(pid) => Some(open(*pid)?),
            None => return Ok(None),
        }
    };
    let thread = thread::Builder::new().name(name.to_owned());
    let thread = thread.spawn(move || match namespace.as_ref().map(enter) {
        None | Some(Ok(())) => f(),
        Some(Err(error)) => tracing::warn!(netns, "enter the network namespace: {error}"),
    });
    thread.map(Some)
}

/// Runs something in a network namespace, on this thread if it is ours. `None` where no
/// process lives in it.
///
/// # Errors
///
/// As [`own`] and [`within`].
pub fn inside<T: Send>(netns: u32, f: impl FnOnce() -> T + Send) -> io::Result<Option<T>> {
    if own()? == netns {
        return Ok(Some(f()));
    }
    match scan().get(&netns) {
        Some(pid) => within(*pid, f).map(Some),
        None => Ok(None),
    }
}

/// Runs something on a thread of its own in the network namespace of a process.
///
/// # Errors
///
/// Where the namespace cannot be entered: the process has gone, or ours lacks
/// CAP_SYS_ADMIN.
pub fn within<T: Send>(pid: u32, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = open(pid)?;
    let fail = |operation: &str, error: io::Error| {
        io::Error::new(error.kind(), format!("{operation} {}: {error}", path(pid)))
    };
    thread::scope(|scope| {
        let inside = thread::Builder::new().spawn_scoped(scope, || match enter(&namespace) {
            Ok(()) => Ok(f()),
            Err(error) => Err(fail("enter", error)),
        });
        let inside = inside.map_err(|error| fail("start a thread for", error))?;
        inside
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn path(pid: u32) -> String {
    format!("/proc/{pid}/ns/net")
}

fn open(pid: u32) -> io::Result<fs::File> {
    let path = path(pid);
    fs::File::open(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("open {path}: {error}")))
}

/// Moves the calling thread, which is to end there.
fn enter(namespace: &fs::File) -> io::Result<()> {
    // SAFETY: takes no pointer; it moves this thread alone.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Inode number of the network namespace of a process.
fn of(process: &str) -> io::Result<u32> {
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
        let own = own().expect("every process has one");
        assert!(
            Namespaces::default()
                .living()
                .any(|(netns, _)| netns == own)
        );
    }
}
