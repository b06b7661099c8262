//! Debian's packages, where we may install them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cargo;

/// Whether we are root, and this is Debian. The owner of our own folder in /proc is who we are.
pub(crate) fn is_ours() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
    root && Path::new("/etc/debian_version").exists()
}

pub(crate) fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {}", packages.join(", "));
    cargo::run(apt_get().arg("update"))?;
    // Nothing that is installed may go: Debian's compiler conflicts with its own rustup.
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends", "--no-remove"]);
    cargo::run(install.args(packages))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg("--quiet=2");
    command
}
