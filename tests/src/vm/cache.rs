//! The folder for what is fetched and prepared once: kernels, tools, QEMU.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::report::say;
use crate::files;

/// Raised when what is prepared changes its shape; older entries are then not found any more.
const FORMAT: u32 = 2;

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
/// other waits. An entry whose files are not as they were built is built again.
pub(crate) fn entry(
    kind: &str,
    name: &str,
    inputs: impl Hash,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    entry_in(&folder(kind)?, name, inputs, build)
}

fn entry_in(
    parent: &Path,
    name: &str,
    inputs: impl Hash,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let entry = parent.join(format!("{name}-{:016x}", digest(&inputs)));
    if is_whole(&entry)? {
        return Ok(entry);
    }
    let _lock = lock(parent)?;
    if is_whole(&entry)? {
        return Ok(entry);
    }
    remove(&entry)?;
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(parent)
        .with_context(|| format!("make a folder in {}", parent.display()))?;
    build(unfinished.path())?;
    Manifest::of(unfinished.path())?.write(&entry)?;
    fs::rename(unfinished.path(), &entry)
        .with_context(|| format!("name the finished {}", entry.display()))?;
    Ok(entry)
}

/// Whether an entry is there, and as it was built. It is read once a process.
fn is_whole(entry: &Path) -> Result<bool> {
    static READ: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if !entry.is_dir() {
        return Ok(false);
    }
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if read.contains(entry) {
        return Ok(true);
    }
    match damage(entry)? {
        None => {
            read.insert(entry.to_owned());
            Ok(true)
        }
        Some(damage) => {
            say!(
                "{} in the cache is damaged ({damage}) and is made again",
                entry.display()
            );
            Ok(false)
        }
    }
}

fn damage(entry: &Path) -> Result<Option<String>> {
    let Some(wanted) = Manifest::read(entry)? else {
        return Ok(Some("its list of files is missing or cut short".to_owned()));
    };
    let found = Manifest::of(entry)?;
    let differs = |(path, sum): &(&PathBuf, &u32)| found.0.get(*path) != Some(*sum);
    let first = wanted.0.iter().find(differs);
    Ok(first.map(|(path, _)| format!("{} is missing or has changed", path.display())))
}

fn remove(entry: &Path) -> Result<()> {
    match entry.is_dir() {
        true => fs::remove_dir_all(entry).with_context(|| format!("remove {}", entry.display())),
        false => Ok(()),
    }
}

/// The files of an entry, with the CRC-32 of each. Beside the entry, as programs see the entry itself.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest(BTreeMap<PathBuf, u32>);

impl Manifest {
    fn of(entry: &Path) -> Result<Self> {
        let mut sums = BTreeMap::new();
        for path in files::below(entry)? {
            // Links lead to other files of the entry, or out of it.
            if path.is_symlink() {
                continue;
            }
            let name = path.strip_prefix(entry).unwrap_or(&path).to_owned();
            sums.insert(name, crc32fast::hash(&files::read(&path)?));
        }
        Ok(Self(sums))
    }

    fn path(entry: &Path) -> PathBuf {
        entry.with_added_extension("files")
    }

    fn read(entry: &Path) -> Result<Option<Self>> {
        let path = Self::path(entry);
        match fs::read(&path) {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    fn write(&self, entry: &Path) -> Result<()> {
        let path = Self::path(entry);
        let json = serde_json::to_vec(self).context("write a list of files as JSON")?;
        fs::write(&path, json).with_context(|| format!("write {}", path.display()))
    }
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

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn build(folder: &Path) -> Result<()> {
        fs::create_dir(folder.join("inner"))?;
        fs::write(folder.join("inner/file"), "whole")?;
        Ok(())
    }

    fn not_again(_: &Path) -> Result<()> {
        bail!("it is there already")
    }

    #[test]
    fn an_entry_is_built_once() {
        let parent = tempfile::tempdir().unwrap();
        let first = entry_in(parent.path(), "it", 1, build).unwrap();
        let again = entry_in(parent.path(), "it", 1, not_again).unwrap();
        assert_eq!(first, again);
        let other = entry_in(parent.path(), "it", 2, build).unwrap();
        assert_ne!(first, other);
    }

    #[test]
    fn a_build_that_fails_leaves_no_entry() {
        let parent = tempfile::tempdir().unwrap();
        let half = |folder: &Path| {
            build(folder)?;
            bail!("the disk is full")
        };
        entry_in(parent.path(), "it", 1, half).unwrap_err();
        let left = fs::read_dir(parent.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".lock"]);
        entry_in(parent.path(), "it", 1, build).unwrap();
    }

    /// As after a crash, or a disk that was full.
    #[test]
    fn a_damaged_entry_is_built_again() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 4] = [
            ("cut short", |it| {
                fs::write(it.join("inner/file"), "who").unwrap()
            }),
            ("changed", |it| {
                fs::write(it.join("inner/file"), "hole!").unwrap()
            }),
            ("removed", |it| {
                fs::remove_file(it.join("inner/file")).unwrap()
            }),
            ("without its list", |it| {
                fs::remove_file(Manifest::path(it)).unwrap()
            }),
        ];
        for (what, damage_it) in damages {
            let parent = tempfile::tempdir().unwrap();
            // What another process has built.
            let entry = parent.path().join(format!("it-{:016x}", digest(&1)));
            fs::create_dir(&entry).unwrap();
            build(&entry).unwrap();
            Manifest::of(&entry).unwrap().write(&entry).unwrap();
            assert_eq!(damage(&entry).unwrap(), None);
            damage_it(&entry);
            assert!(damage(&entry).unwrap().is_some(), "{what}");
            let again = entry_in(parent.path(), "it", 1, build).unwrap();
            assert_eq!(again, entry);
            assert_eq!(
                fs::read_to_string(entry.join("inner/file")).unwrap(),
                "whole"
            );
            assert_eq!(damage(&entry).unwrap(), None);
        }
    }

    #[test]
    fn files_that_came_later_are_no_damage() {
        let parent = tempfile::tempdir().unwrap();
        let entry = entry_in(parent.path(), "it", 1, build).unwrap();
        fs::write(entry.join("cache"), "of a program").unwrap();
        assert_eq!(damage(&entry).unwrap(), None);
    }
}
