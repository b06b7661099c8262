//! A directory that only its owner can have written to.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use rustix::{
    fs::{
        AtFlags, FileType, IFlags, Mode, OFlags, Stat, fstat, fsync, ioctl_getflags,
        ioctl_setflags, openat, renameat, statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

/// Who may write beside the owner.
const OTHERS_WRITE: u32 = 0o022;

/// The directory, open.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Makes the directory if need be, with its parents, and opens it.
    ///
    /// # Errors
    ///
    /// As [`Self::open`], and when it cannot be made.
    pub fn make(path: &Path) -> anyhow::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// When it is not there, belongs to another user, others may write to it, or another user has
    /// made a link to it; what to do about it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let link = fs::symlink_metadata(path).with_context(|| format!("open {name}"))?;
        let foreign = |uid| {
            format!(
                "{name} belongs to the user with id {uid}, so nothing in it can be trusted: select \
                 another directory"
            )
        };
        // Such a link could lead to any directory of this user.
        let may_link = [geteuid().as_raw(), 0].contains(&link.uid());
        ensure!(may_link, foreign(link.uid()));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(path, flags, Mode::empty())
            .map_err(io::Error::from)
            .with_context(|| format!("open {name}"))?;
        let status = fstat(&descriptor).map_err(io::Error::from)?;
        let is_own = status.st_uid == geteuid().as_raw();
        ensure!(is_own, foreign(status.st_uid));
        ensure!(
            status.st_mode & OTHERS_WRITE == 0,
            "others may write to {name} (mode {:o}), so nothing in it can be trusted: check its \
             files, then run `chmod go-w {name}`",
            status.st_mode & 0o7777
        );
        Ok(Self {
            descriptor,
            path: path.to_owned(),
        })
    }

    /// Opens the directory; `None` where it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_existing(path: &Path) -> anyhow::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(_) | Err(_) => Self::open(path).map(Some),
        }
    }

    /// Where a file of this name is, for messages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory's own descriptor.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Opens a file of this directory with these flags. A file that is made has mode 0600.
    ///
    /// # Errors
    ///
    /// The kernel's error. When the name is a link or no regular file, has a second name, belongs
    /// to another user, or others may write to it; what to do about it.
    pub fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // A FIFO must not block the open. On a regular file the flag means nothing.
        let safe = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.descriptor, name, flags | safe, mode).map_err(|error| {
            if error == Errno::LOOP {
                return untrusted("it is a symbolic link: remove it");
            }
            error.into()
        })?;
        check(&fstat(&file)?).map_err(|why| untrusted(&why))?;
        Ok(file.into())
    }

    /// What a file contains; `None` where it is not there.
    ///
    /// # Errors
    ///
    /// As [`Self::file`], and when it is longer than the limit, bytes.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            let why = format!("it is longer than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(Some(bytes))
    }

    /// Makes an empty file, unless it is there.
    ///
    /// # Errors
    ///
    /// As [`Self::file`].
    pub fn touch(&self, name: &str) -> io::Result<()> {
        self.file(name, OFlags::WRONLY | OFlags::CREATE)?;
        self.sync()
    }

    /// Removes a file, if it is there. A link is removed, not followed.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a file with these bytes in the place of what has this name, at once: after a power
    /// failure there is either the old file or the new one. `prepare` gets the new file before it
    /// takes the name. The new file is returned, open for writing.
    ///
    /// # Errors
    ///
    /// The kernel's error, or that of `prepare`. What had the name is still there then.
    pub fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        prepare: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<File> {
        let new = format!("{name}.new");
        // It was left by an agent that was killed, or another put it there.
        self.remove(&new)?;
        let made = (|| {
            let mut file = self.file(&new, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
            write_in_place(&file);
            file.write_all(bytes)?;
            prepare(&file)?;
            file.sync_all()?;
            renameat(&self.descriptor, &new, &self.descriptor, name)?;
            Ok(file)
        })();
        match made {
            Ok(file) => {
                self.sync()?;
                Ok(file)
            }
            Err(error) => {
                // It may hold the last blocks of a full disk.
                let _ = self.remove(&new);
                Err(error)
            }
        }
    }

    /// Waits until the names in the directory are on the disk.
    fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.descriptor)?)
    }

    /// Whether this name is there, whatever it is.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        let name = CString::new(Path::new(name).as_os_str().as_bytes())?;
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether only this user can have written to a file.
fn check(status: &Stat) -> Result<(), String> {
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err("it is no regular file: remove it".to_owned());
    }
    if status.st_uid != geteuid().as_raw() {
        return Err(format!(
            "it belongs to the user with id {}: check what it contains, then remove it or change \
             its owner",
            status.st_uid
        ));
    }
    if status.st_mode & OTHERS_WRITE != 0 {
        return Err(format!(
            "others may write to it (mode {:o}): check what it contains, then run `chmod go-w` on \
             it",
            status.st_mode & 0o7777
        ));
    }
    if status.st_nlink > 1 {
        return Err("the file has a second name (hard link): remove it".to_owned());
    }
    Ok(())
}

/// Btrfs writes each block to another place, unless a file was marked while it was empty
/// (fs/btrfs/ioctl.c, `btrfs_fileattr_set`); what is reserved for a file would not serve a second
/// write. Other file systems have no such mark and need none.
fn write_in_place(file: &File) {
    if let Ok(flags) = ioctl_getflags(file) {
        let _ = ioctl_setflags(file, flags | IFlags::NOCOW);
    }
}

fn untrusted(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, Directory) {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Directory::open(folder.path()).expect("it is ours");
        (folder, directory)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode is set");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().expect("a folder");
        for (bits, refused) in [(0o770, true), (0o702, true), (0o1777, true), (0o755, false)] {
            mode(folder.path(), bits);
            match Directory::open(folder.path()) {
                Ok(_) => assert!(!refused, "{bits:o}"),
                Err(error) => {
                    assert!(refused, "{bits:o}: {error:#}");
                    assert!(error.to_string().contains("chmod go-w"), "{error:#}");
                }
            }
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let other = if geteuid().is_root() {
            let folder = tempfile::tempdir().expect("a folder");
            std::os::unix::fs::chown(folder.path(), Some(12_345), None).expect("root may");
            folder.keep()
        } else {
            "/".into()
        };
        let error = Directory::open(&other).expect_err("it is not ours");
        assert!(error.to_string().contains("belongs to"), "{error:#}");
        if other.parent().is_some() {
            fs::remove_dir(other).expect("it is removed");
        }
    }

    #[test]
    fn a_link_is_never_followed() {
        let (folder, directory) = folder();
        let target = folder.path().join("target");
        fs::write(&target, "precious").expect("it is written");
        for name in ["journal", "journal.new"] {
            symlink(&target, folder.path().join(name)).expect("a link");
        }
        let error = directory.read("journal", 100).expect_err("it is a link");
        assert!(error.to_string().contains("symbolic link"), "{error}");
        directory
            .replace("journal", b"new", |_| Ok(()))
            .expect("links are replaced");
        assert_eq!(fs::read(&target).expect("it is there"), b"precious");
        let journal = fs::symlink_metadata(folder.path().join("journal")).expect("it is there");
        assert!(journal.is_file());
        assert_eq!(journal.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_may_have_written_is_refused() {
        let (folder, directory) = folder();
        let path = folder.path().join("journal");
        fs::write(&path, "text").expect("it is written");
        mode(&path, 0o644);
        assert_eq!(
            directory.read("journal", 4).expect("it is ours").as_deref(),
            Some(&b"text"[..])
        );
        let error = directory.read("journal", 3).expect_err("it is too long");
        assert!(error.to_string().contains("longer than 3"), "{error}");
        mode(&path, 0o666);
        let error = directory.read("journal", 4).expect_err("others may write");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        mode(&path, 0o600);
        fs::hard_link(&path, folder.path().join("second")).expect("a second name");
        assert!(directory.read("journal", 4).is_err());
    }

    #[test]
    fn a_fifo_does_not_block() {
        let (folder, directory) = folder();
        let path = folder.path().join("journal");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .expect("a FIFO");
        let error = directory.read("journal", 4).expect_err("it is a FIFO");
        assert!(error.to_string().contains("no regular file"), "{error}");
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_file_and_no_new_one() {
        let (folder, directory) = folder();
        directory
            .replace("journal", b"old", |_| Ok(()))
            .expect("it is written");
        let full = |_: &File| Err(io::Error::from(io::ErrorKind::StorageFull));
        directory
            .replace("journal", b"new", full)
            .expect_err("the disk is full");
        assert_eq!(fs::read(folder.path().join("journal")).expect("it"), b"old");
        assert!(!directory.has("journal.new").expect("it can be looked for"));
    }
}
