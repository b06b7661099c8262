//! Kernel settings, by the names that sysctl(8) uses.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const ROOT: &str = "/proc/sys";

pub(crate) fn read(name: &str) -> Result<String> {
    let text = fs::read_to_string(path(name)).with_context(|| format!("read sysctl {name}"))?;
    Ok(text.trim().to_owned())
}

pub(crate) fn write(name: &str, value: &str) -> Result<()> {
    fs::write(path(name), value).with_context(|| format!("write {value:?} to sysctl {name}"))
}

/// A name of a network interface may hold a dot; then it is written as a path.
fn path(name: &str) -> PathBuf {
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    Path::new(ROOT).join(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_name_are_understood() {
        let wanted = Path::new("/proc/sys/net/ipv4/ip_forward");
        assert_eq!(path("net.ipv4.ip_forward"), wanted);
        assert_eq!(path("net/ipv4/ip_forward"), wanted);
    }
}
