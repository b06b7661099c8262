//! Modules: loaded, built in, or absent; which load of one this is; and whether
//! anybody uses it.

use std::{
    collections::BTreeMap,
    fs,
    ops::Deref,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::facts::ModuleState;

/// References to modules that this process's own programs hold.
static HELD: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());

/// Where a module's code is, found out by what `/sys/module` shows and whether a
/// symbol of it exists: a module that is built in shows itself there only if it
/// has parameters.
pub fn state(module: &str, has_symbol: bool) -> ModuleState {
    let folder = folder(module);
    if folder.join("initstate").exists() {
        ModuleState::Loaded
    } else if has_symbol || folder.exists() {
        ModuleState::BuiltIn
    } else {
        ModuleState::Absent
    }
}

/// A number that differs for each load of a module: the inode of its folder, which
/// sysfs makes anew. `None` for one that is absent, on its way in or out, or built
/// in without parameters. Cheap enough for each tick.
pub fn instance(module: &str) -> Option<u64> {
    let folder = folder(module);
    let instance = fs::metadata(&folder).ok()?.ino();
    match fs::read_to_string(folder.join("initstate")) {
        Ok(state) if state.trim() != "live" => None,
        Ok(_) | Err(_) => Some(instance),
    }
}

/// How many others use a module that is loaded: modules, sockets, programs of other
/// processes. Those that are [`Held`] here do not count.
pub fn users(module: &str) -> Option<u32> {
    let held = held();
    let own = held.get(module).copied().unwrap_or(0);
    Some(references(module)?.saturating_sub(own))
}

/// Programs on a module's functions, which keep it from being unloaded for as long as
/// they live. How many references that makes differs by kernel and hook, so it is looked
/// at.
#[derive(Debug)]
pub struct Held<T> {
    /// Taken when dropped alone.
    programs: Option<T>,
    module: &'static str,
    references: u32,
}

impl<T> Held<T> {
    /// Attaches programs to a module's functions. One caller at a time, so that each
    /// sees the references that are its own.
    pub fn hold(module: &'static str, attach: impl FnOnce() -> T) -> Self {
        let mut held = held();
        let before = references(module).unwrap_or(0);
        let programs = Some(attach());
        let references = references(module).unwrap_or(0).saturating_sub(before);
        *held.entry(module).or_default() += references;
        Self {
            programs,
            module,
            references,
        }
    }

    /// Whether they keep the module from being unloaded, and nobody else does.
    pub fn alone(&self) -> bool {
        self.references > 0 && users(self.module) == Some(0)
    }
}

impl<T> Deref for Held<Vec<T>> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.programs.as_deref().unwrap_or_default()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let mut held = held();
        drop(self.programs.take());
        if let Some(references) = held.get_mut(self.module) {
            *references = references.saturating_sub(self.references);
        }
    }
}

/// A number is never half changed, so a panic elsewhere does no harm to it.
fn held() -> MutexGuard<'static, BTreeMap<&'static str, u32>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn references(module: &str) -> Option<u32> {
    fs::read_to_string(folder(module).join("refcnt"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Whether a module was built apart from the kernel it is loaded into (taint `O`,
/// Documentation/admin-guide/tainted-kernels.rst).
pub fn is_out_of_tree(module: &str) -> bool {
    fs::read_to_string(folder(module).join("taint")).is_ok_and(|taint| taint.contains('O'))
}

fn folder(module: &str) -> PathBuf {
    PathBuf::from("/sys/module").join(module)
}
