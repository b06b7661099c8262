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

/// How many others use a module that is loaded: modules, sockets, attached programs.
pub fn users(module: &str) -> Option<u32> {
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
