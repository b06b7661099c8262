//! The files of one run of a VM.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::cache;

/// Held locked by the process whose run it is.
const OWNED: &str = "owned";

/// Gone when it is dropped.
#[derive(Debug)]
pub(crate) struct RunFolder {
    folder: TempDir,
    _owned: File,
}

impl RunFolder {
    /// Where they all are.
    pub(crate) fn parent() -> Result<PathBuf> {
        cache::folder("runs")
    }

    /// What runs that were killed have left is removed first.
    pub(crate) fn create() -> Result<Self> {
        let parent = Self::parent()?;
        let _lock = cache::lock(&parent)?;
        sweep(&parent)?;
        let folder = tempfile::Builder::new()
            .prefix("vm-")
            .tempdir_in(&parent)
            .with_context(|| format!("make a folder in {}", parent.display()))?;
        let path = folder.path().join(OWNED);
        let owned = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        owned
            .lock()
            .with_context(|| format!("lock {}", path.display()))?;
        Ok(Self {
            folder,
            _owned: owned,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.path().join("console.log")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.path().join("events.jsonl")
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.path().join("initrd")
    }

    /// What QEMU itself says.
    pub(crate) fn complaints(&self) -> PathBuf {
        self.path().join("qemu.log")
    }
}

fn sweep(parent: &Path) -> Result<()> {
    let entries = fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))?;
    for entry in entries {
        let folder = entry
            .with_context(|| format!("list {}", parent.display()))?
            .path();
        if folder.is_dir() && is_abandoned(&folder) {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    Ok(())
}

fn is_abandoned(folder: &Path) -> bool {
    match File::open(folder.join(OWNED)) {
        Ok(owned) => owned.try_lock().is_ok(),
        Err(_) => true,
    }
}
