//! Programs that tests need and a machine may lack: taken from packages into the cache, never
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cache;
use super::packages::Apt;

/// The suites whose programs run with the libraries of every machine that the tests run on.
const SUITES: [&str; 2] = ["bookworm", "bookworm-security"];

/// A program of a package of Debian, such as `usr/bin/promtool` of `prometheus`, and nothing that
/// the package brings beside it.
pub fn debian_program(package: &str, path: &str) -> Result<PathBuf> {
    let folder = cache::entry("programs", package, (package, path, SUITES), |entry| {
        take_out(package, path, &entry.join("program"))
    })?;
    Ok(folder.join("program"))
}

/// Debian's Alertmanager, to be started with arguments. It does not start without the templates for
/// mails of its package, which it looks for in `/usr/share`: it sees its own there.
pub fn alertmanager() -> Result<Command> {
    const PACKAGE: &str = "prometheus-alertmanager";
    let program = debian_program(PACKAGE, "usr/bin/prometheus-alertmanager")?;
    let share = cache::entry("shared", PACKAGE, (PACKAGE, SUITES), |entry| {
        take_out(PACKAGE, "usr/share", &entry.join("share"))
    })?;
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
        .args(["sh", "-c", "mount --bind \"$0\" /usr/share && exec \"$@\""])
        .args([share.join("share"), program]);
    Ok(command)
}

/// One path of a package, which goes to a path of the cache.
fn take_out(package: &str, path: &str, to: &Path) -> Result<()> {
    let apt = Apt::open(&SUITES.map(str::to_owned))?;
    let folder = to.parent().context("a path without a folder")?;
    let whole = tempfile::tempdir_in(folder).context("make a folder in the cache")?;
    apt.unpack_exactly(&[package.to_owned()], whole.path())?;
    fs::rename(whole.path().join(path), to).with_context(|| format!("take {path} out of {package}"))
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
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "install {requirement} by python3's pip: {}",
        said.trim()
    );
    Ok(())
}
