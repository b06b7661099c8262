//! The state directory: what must outlive a request, and who may change it. Whoever has
//! the lock on it is the one agent of the node.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::geteuid;

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
    /// Makes the directory if need be and takes the lock in it. An empty path
    /// stands for the usual directory.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, or another agent has the lock; which one.
    pub fn take(configured: &Path) -> anyhow::Result<Self> {
        lock(&make(configured)?.join("lock"))
    }
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
/// When it cannot be made, or somebody else has made one of that name.
pub fn make(configured: &Path) -> anyhow::Result<PathBuf> {
    let directory = directory(configured);
    make_own(&directory).with_context(|| {
        format!(
            "make the state directory {} (--state-dir or [agent] state_dir takes another)",
            directory.display()
        )
    })?;
    Ok(directory)
}

/// Only its owner can enter. In a directory that everybody can write to, somebody
/// else may have made one of that name first.
fn make_own(directory: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let owner = fs::symlink_metadata(directory)?.uid();
    ensure!(
        owner == geteuid().as_raw(),
        "it belongs to the user with id {owner}"
    );
    Ok(())
}

fn lock(path: &Path) -> anyhow::Result<Lock> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("{} is locked by {}", path.display(), holder(file)),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    write_holder(&mut file).with_context(|| format!("write {}", path.display()))?;
    Ok(Lock(file))
}

/// For the message of a second agent.
fn write_holder(file: &mut File) -> std::io::Result<()> {
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
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        let first = Lock::take(&state).unwrap();
        let error = Lock::take(&state).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Lock::take(&state).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Lock::take(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state"), "{error}");
    }
}
