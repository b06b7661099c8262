//! Mounts that a server or a daemon answers for.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::cgroup::unescaped;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is.
    pub place: PathBuf,
    /// The type of its file system, as `nfs4`.
    pub file_system: String,
    /// What is mounted, as `server:/export`.
    pub source: String,
}

/// All mounts of the node's first process, where this process sees them, else its own.
///
/// # Errors
///
/// The kernel's error.
pub fn all() -> io::Result<Vec<Mount>> {
    let of_init = fs::read_to_string("/proc/1/mountinfo");
    let mounts = of_init.or_else(|_| fs::read_to_string("/proc/self/mountinfo"))?;
    Ok(parse(&mounts))
}

/// The mount in which a process with this folder in procfs sees a file.
pub(super) fn of_file(process: &Path, file: &Path) -> Option<Mount> {
    let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
    let mounts = parse(&mounts).into_iter();
    // Of two at one place the later one is on top.
    let above = mounts.filter(|it| file.starts_with(&it.place));
    above.max_by_key(|it| it.place.components().count())
}

/// proc_pid_mountinfo(5): id, parent, device, root, place, options, optional fields, `-`, type,
/// source, options of the file system.
fn parse(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        Some(Mount {
            place: unescaped(mount.split(' ').nth(4)?),
            file_system: system.next()?.to_owned(),
            source: unescaped(system.next()?).to_string_lossy().into_owned(),
        })
    };
    mountinfo.lines().filter_map(mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_its_server() {
        let mounts = "22 1 0:21 / / rw - ext4 /dev/vda rw\n\
                      90 22 0:55 / /srv/my\\040data rw,relatime shared:3 - nfs4 10.0.0.9:/a\\040b rw\n\
                      garbage\n1 2 3 - x";
        let found = parse(mounts);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[1],
            Mount {
                place: "/srv/my data".into(),
                file_system: "nfs4".to_owned(),
                source: "10.0.0.9:/a b".to_owned(),
            }
        );
    }
}
