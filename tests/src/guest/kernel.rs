//! What this kernel is and has, found by looking.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::kmod::{DeleteModuleFlags, delete_module};

/// The names of the loaded modules, newest first.
pub(crate) fn modules() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/modules").context("read /proc/modules")?;
    let names = text.lines().filter_map(|line| line.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}

pub(crate) fn rmmod(module: &str) -> Result<()> {
    let name = CString::new(module).context("the name of a module")?;
    delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
        .with_context(|| format!("unload module {module}"))
}

pub(crate) fn has_btf(of: &str) -> bool {
    Path::new("/sys/kernel/btf").join(of).exists()
}

/// `ffffffff81000000 t name [module]`
pub(crate) fn has_symbol(name: &str) -> Result<bool> {
    let file = File::open("/proc/kallsyms").context("open /proc/kallsyms")?;
    for line in BufReader::new(file).lines() {
        let line = line.context("read /proc/kallsyms")?;
        if line.split_whitespace().nth(2) == Some(name) {
            return Ok(true);
        }
    }
    Ok(false)
}
