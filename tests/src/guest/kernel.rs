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

/// How many CPUs are of a kind: `possible`, `online`.
pub(crate) fn cpus(kind: &str) -> Result<u32> {
    let path = format!("/sys/devices/system/cpu/{kind}");
    let list = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ranges = list.trim().split(',').map(length_of_range);
    let count = ranges.sum::<Option<u32>>();
    count.with_context(|| format!("{path} is {list:?}"))
}

/// `0-127`, or `3`.
fn length_of_range(range: &str) -> Option<u32> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    (last + 1).checked_sub(first)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_cpus_are_counted() {
        assert_eq!(length_of_range("0-127"), Some(128));
        assert_eq!(length_of_range("3"), Some(1));
        assert_eq!(length_of_range("3-"), None);
        assert_eq!(length_of_range("3-1"), None);
    }
}
