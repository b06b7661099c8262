//! Mounts that a server or a daemon answers for.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is.
    pub place: PathBuf,
    /// The type of its file system, as `nfs4`.
    pub file_system: String,
    /// What is mounted, as `server:/export`.
    pub source: String,
    /// `major:minor` of the file system, by which two mounts of one are told; empty where it is
    /// not known.
    #[serde(default)]
    pub device: String,
}

/// All mounts of the node's first process, where this process sees them, else its own.
///
/// # Errors
///
/// The kernel's error.
pub fn all() -> io::Result<Vec<Mount>> {
    let of_init = read(Path::new("/proc/1/mountinfo"));
    let mounts = of_init.or_else(|_| read(Path::new("/proc/self/mountinfo")))?;
    Ok(parse(&mounts))
}

/// A file `mountinfo`. The place of a mount is any bytes, and one that is no text hides no other.
pub(super) fn read(file: &Path) -> io::Result<String> {
    fs::read(file).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// The mount in which a process with this folder in procfs sees a file.
pub(super) fn of_file(process: &Path, file: &Path) -> Option<Mount> {
    let mounts = read(&process.join("mountinfo")).ok()?;
    let mounts = parse(&mounts).into_iter();
    // Names need not be text; both sides are changed alike.
    let file = file.to_string_lossy();
    // Of two at one place the later one is on top.
    let above = mounts.filter(|it| Path::new(file.as_ref()).starts_with(&it.place));
    above.max_by_key(|it| it.place.components().count())
}

/// A line of `/proc/PID/mountinfo`, as it stands there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'t> {
    device: &'t str,
    /// The part of the file system that is mounted.
    pub(super) root: &'t str,
    place: &'t str,
    /// Its type.
    pub(super) file_system: &'t str,
    source: &'t str,
    /// Options of the file system itself.
    pub(super) options: &'t str,
}

impl Line<'_> {
    /// Where it is.
    pub(super) fn place(&self) -> PathBuf {
        unescaped(self.place).into()
    }
}

/// proc_pid_mountinfo(5): id, parent, device, root, place, options, optional fields, `-`, type,
/// source, options of the file system.
pub(super) fn lines(mountinfo: &str) -> impl Iterator<Item = Line<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let mut system = system.split(' ');
        Some(Line {
            device: mount.next()?,
            root: mount.next()?,
            place: mount.next()?,
            file_system: system.next()?,
            source: system.next()?,
            options: system.next().unwrap_or_default(),
        })
    })
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    let mount = |line: Line<'_>| Mount {
        place: line.place(),
        file_system: line.file_system.to_owned(),
        source: unescaped(line.source),
        device: line.device.to_owned(),
    };
    lines(mountinfo).map(mount).collect()
}

/// Spaces, tabs, newlines, backslashes and `#` are octal there, `\040` (fs/proc_namespace.c,
/// `mangle`).
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        plain.push_str(before);
        let digits = behind.get(..3);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &behind[3..];
            }
            None => {
                plain.push('\\');
                rest = behind;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// The files of the node, as a container sees them that shares its processes.
pub const NODE_ROOT: &str = "/proc/1/root";

/// Whether this program sees the files of the node themselves, as a service of systemd does, and not
/// those of an image, as in a container. `None` where it cannot see the node's first process.
pub fn sees_nodes_root() -> Option<bool> {
    let place = |path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    Some(place("/")? == place(NODE_ROOT)?)
}

/// For fuzzing: lists of mounts.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "mountinfo",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = (parse(&text), super::cgroup::Hierarchies::parse(&text));
    },
    seeds: &[
        b"22 1 0:21 / / rw - ext4 /dev/vda rw\n31 22 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n40 22 0:40 / /mnt/a\\040b rw - nfs4 server:/export rw\n33 22 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
    ],
};

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
                device: "0:55".to_owned(),
            }
        );
    }

    #[test]
    fn a_mount_with_a_name_that_is_no_text_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mounts = b"22 1 0:21 / / rw - ext4 /dev/vda rw\n23 22 0:22 / /mnt/caf\xe9 rw - xfs /dev/vdb rw\n\
            90 22 0:55 / /srv rw - nfs4 10.0.0.9:/a rw\n";
        fs::write(folder.path().join("mountinfo"), mounts).unwrap();
        let of = |file: &str| of_file(folder.path(), Path::new(file)).unwrap().file_system;
        assert_eq!(of("/srv/x"), "nfs4");
        assert_eq!(of("/etc/x"), "ext4");
    }

    #[test]
    fn every_escape_is_undone_and_nothing_else_is() {
        for (escaped, plain) in [
            (r"a\040b\043c", "a b#c"),
            (r"\011\012\134040", "\t\n\\040"),
            (r"C:\x\9", r"C:\x\9"),
            ("\\", "\\"),
            ("", ""),
        ] {
            assert_eq!(unescaped(escaped), plain, "{escaped}");
        }
        let odd = "74 25 0:59 / /mnt/tmpfs rw - tmpfs  rw\n75 25 0:60 / /mnt/a rw - tmpfs - rw\n";
        let sources: Vec<_> = parse(odd).into_iter().map(|it| it.source).collect();
        assert_eq!(sources, ["", "-"]);
    }

    #[test]
    fn a_file_with_a_name_that_is_no_text_is_in_its_mount() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
        let process = tempfile::tempdir().expect("a folder");
        let mounts =
            b"22 1 0:21 / / rw - ext4 /dev/vda rw\n90 22 0:55 / /d\xff rw - nfs4 h:/a rw\n";
        fs::write(process.path().join("mountinfo"), mounts).expect("written");
        let file = Path::new(OsStr::from_bytes(b"/d\xff/x"));
        let mount = of_file(process.path(), file).expect("there is one");
        assert_eq!(mount.source, "h:/a");
    }
}
