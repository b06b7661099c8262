//! The state directory: what must outlive a request, and who may change it. Whoever has
//! the lock on it is the one agent of the node.

use std::{
    env,
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::{fs::OFlags, process::geteuid};

use crate::durable::Directory;

/// The name of the lock in the directory.
const LOCK: &str = "lock";

/// The lock, held until it is dropped or the process ends, however that happens.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "open, it holds the lock")] File);

/// The configured directory, or the usual one for an empty path.
pub fn directory(configured: &Path) -> PathBuf {
    if configured.as_os_str().is_empty() {
        usual_directory()
    } else {
        configured.to_owned()
    }
}

impl Lock {
    /// Makes the directory if need be and takes the lock in it; else who has it. An empty path
    /// stands for the usual directory.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made or trusted, or the lock in it cannot be opened.
    pub fn take(configured: &Path) -> anyhow::Result<Result<Self, Held>> {
        lock(&make(configured)?)
    }
}

/// Another process has the lock; the lock and the process.
#[derive(Debug, thiserror::Error)]
#[error("{} is locked by {holder}", lock.display())]
pub struct Held {
    lock: PathBuf,
    holder: String,
}

fn usual_directory() -> PathBuf {
    if geteuid().is_root() {
        return "/run/nodemedic".into();
    }
    match env::var_os("XDG_RUNTIME_DIR").filter(|runtime| !runtime.is_empty()) {
        Some(runtime) => Path::new(&runtime).join("nodemedic"),
        None => env::temp_dir().join(format!("nodemedic-{}", geteuid().as_raw())),
    }
}

/// Makes the configured directory, or the usual one for an empty path, if need be.
///
/// # Errors
///
/// When it cannot be made, belongs to another user, or others may write to it.
pub fn make(configured: &Path) -> anyhow::Result<Directory> {
    let directory = directory(configured);
    Directory::make(&directory).with_context(|| {
        format!(
            "use the state directory {} (--state-dir or [agent] state_dir selects another)",
            directory.display()
        )
    })
}

fn lock(directory: &Directory) -> anyhow::Result<Result<Lock, Held>> {
    let lock = directory.path(LOCK);
    let path = lock.display();
    let mut file = open(directory).with_context(|| format!("open {path}"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = holder(file);
            return Ok(Err(Held { lock, holder }));
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {path}"));
        }
    }
    // It is there for a message. A full disk must not keep anybody from undoing a treatment.
    let _ = write_holder(&mut file);
    Ok(Ok(Lock(file)))
}

/// A lock needs no write to the disk, which may be read-only by now.
fn open(directory: &Directory) -> io::Result<File> {
    match directory.file(LOCK, OFlags::RDWR | OFlags::CREATE) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            directory.file(LOCK, OFlags::RDONLY)
        }
        opened => opened,
    }
}

/// For the message of a second agent.
fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(mut file: File) -> String {
    let mut pid = String::new();
    match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => {
            format!("the nodemedic with process id {}", pid.trim())
        }
        Ok(_) | Err(_) => "another nodemedic".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        let first = Lock::take(&state).unwrap().unwrap();
        let error = Lock::take(&state).unwrap().unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Lock::take(&state).unwrap().unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Lock::take(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state"), "{error}");
    }

    #[test]
    fn a_directory_that_others_may_write_to_gives_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = format!("{:#}", Lock::take(folder.path()).unwrap_err());
        assert!(error.contains("--state-dir"), "{error}");
        assert!(error.contains("others may write"), "{error}");
    }

    #[test]
    fn a_lock_that_is_a_link_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, folder.path().join("lock")).unwrap();
        Lock::take(folder.path()).unwrap_err();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}
