//! Modules: loaded, built in, or absent; which load of one this is; and whether
//! anybody uses it.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use super::facts::ModuleState;

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

/// A module that is there, as seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Differs for each load of the module: the inode of its folder, which sysfs
    /// makes anew.
    pub instance: u64,
    /// References held by other modules, sockets and attached programs; `None`
    /// where it is built in or cannot be unloaded.
    pub users: Option<u32>,
}

/// Looks whether a module is there and ready. Cheap enough for each tick. `None`
/// for one that is absent, on its way in or out, or built in without parameters.
pub fn presence(module: &str) -> Option<Presence> {
    let folder = folder(module);
    let instance = fs::metadata(&folder).ok()?.ino();
    match fs::read_to_string(folder.join("initstate")) {
        Ok(state) if state.trim() != "live" => None,
        Ok(_) | Err(_) => Some(Presence { instance, users: users(module) }),
    }
}

/// How many others use a module that is loaded.
pub fn users(module: &str) -> Option<u32> {
    fs::read_to_string(folder(module).join("refcnt")).ok()?.trim().parse().ok()
}

fn folder(module: &str) -> PathBuf {
    PathBuf::from("/sys/module").join(module)
}
