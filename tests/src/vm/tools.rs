//! Programs that tests need and a machine may lack: taken from packages into the cache, never
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cache;
use super::packages::Apt;
use super::run_folder::RunFolder;

/// The suites whose programs run with the libraries of every machine that the tests run on.
const SUITES: [&str; 2] = ["bookworm", "bookworm-security"];

/// A program of a package of Debian, such as `usr/bin/promtool` of `prometheus`, and nothing that
/// the package brings beside it.
pub fn debian_program(package: &str, path: &str) -> Result<PathBuf> {
    let folder = cache::entry("programs", package, (package, path, SUITES), |entry| {
        let apt = Apt::open(&SUITES.map(str::to_owned))?;
        let whole = tempfile::tempdir_in(entry).context("make a folder in the cache")?;
        apt.unpack_exactly(&[package.to_owned()], whole.path())?;
        let (from, to) = (whole.path().join(path), entry.join("program"));
        fs::rename(&from, &to).with_context(|| format!("take {path} out of {package}"))
    })?;
    Ok(folder.join("program"))
}

/// The folder into which a package of Debian is unpacked, and nothing that it depends on.
pub fn debian_package(package: &str) -> Result<PathBuf> {
    cache::entry("packages", package, (package, SUITES), |entry| {
        let apt = Apt::open(&SUITES.map(str::to_owned))?;
        apt.unpack_exactly(&[package.to_owned()], entry)
    })
}

/// What Alertmanager is in.
pub const ALERTMANAGER: &str = "prometheus-alertmanager";

/// Debian's Alertmanager, whose package is unpacked in this folder, to be started with arguments. It
/// wants its templates where the package would be installed: a mount namespace of its own lets it
/// see them there.
pub fn alertmanager(package: &Path) -> Command {
    let mut command = unshared_mounts();
    command
        .args(["sh", "-c", "mount --bind \"$0\" /usr/share && exec \"$@\""])
        .args([
            package.join("usr/share"),
            package.join("usr/bin/prometheus-alertmanager"),
        ]);
    command
}

/// Runs the program that its arguments name where mounts are nobody else's.
pub fn unshared_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
}

/// Where the files of running machines are.
pub fn runs_folder() -> Result<PathBuf> {
    RunFolder::parent()
}

/// A folder for `PYTHONPATH` with a package of PyPI, such as `x==1.0`, and all that it depends on.
pub fn python_package(requirement: &str) -> Result<PathBuf> {
    let name = requirement.split("==").next().unwrap_or(requirement);
    cache::entry("python", name, requirement, |entry| pip(requirement, entry))
}

fn pip(requirement: &str, target: &Path) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--target"]);
    let output = pip
        .arg(target)
        .arg(requirement)
        .output()
        .context("start python3")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "install {requirement} by python3's pip: {}",
        errors.trim()
    );
    Ok(())
}
