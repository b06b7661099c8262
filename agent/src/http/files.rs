//! Files of secrets and certificates, which others renew while we run.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, ensure};
use rustix::process::geteuid;

use crate::files;

/// What is different after any change of a file, one of its permissions too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file behind a path; `None` where none can be seen.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|file| Self::from(&file))
    }
}

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// The content of a file that anybody may know.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    files::read(path).with_context(|| format!("read {}", path.display()))
}

/// The content of a file that nobody but its owner may read, and nobody but root and this user
/// may write.
pub(super) fn read_secret(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = files::open(path).with_context(|| format!("open {}", path.display()))?;
    let found = file
        .metadata()
        .with_context(|| format!("look at {}", path.display()))?;
    let mode = found.permissions().mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "users other than the owner can access {} (mode {mode:04o}): chmod 0400 it, and replace \
         the secret if another user may have read it",
        path.display()
    );
    let (owner, own) = (found.uid(), geteuid().as_raw());
    ensure!(
        [0, own].contains(&owner),
        "{} belongs to user {owner}, who can replace the secret: chown it to root or to user {own}, \
         who runs nodemedic",
        path.display()
    );
    files::up_to(file, files::LARGEST).with_context(|| format!("read {}", path.display()))
}
