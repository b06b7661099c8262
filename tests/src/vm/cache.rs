//! The folder for what is fetched and prepared once: kernels, tools, QEMU.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Raised when what is prepared changes its shape; older entries are then not found any more.
const FORMAT: u32 = 1;

/// The machines' part of the project's cache folder.
pub(crate) fn root() -> Result<PathBuf> {
    Ok(bpf_build::cache_dir()?.join("vm"))
}

/// A folder in the cache, made if need be.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let path = root()?.join(name);
    make(&path)?;
    Ok(path)
}

pub(crate) fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make folder {}", path.display()))
}

/// The entry of this kind for these inputs: found, or built by `build` in a folder that becomes
/// the entry only when it is complete. Of two processes that want the same, one builds and the
/// other waits.
pub(crate) fn entry(
    kind: &str,
    name: &str,
    inputs: impl Hash,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let parent = folder(kind)?;
    let entry = parent.join(format!("{name}-{:016x}", digest(&inputs)));
    if entry.is_dir() {
        return Ok(entry);
    }
    let _lock = lock(&parent)?;
    if entry.is_dir() {
        return Ok(entry);
    }
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(&parent)
        .with_context(|| format!("make a folder in {}", parent.display()))?;
    build(unfinished.path())?;
    fs::rename(unfinished.path(), &entry)
        .with_context(|| format!("name the finished {}", entry.display()))?;
    Ok(entry)
}

/// Held until it is dropped.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.lock()
        .with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Names an entry. Another Rust may hash otherwise: then an entry is built again, no more.
fn digest(inputs: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    FORMAT.hash(&mut hasher);
    inputs.hash(&mut hasher);
    hasher.finish()
}
