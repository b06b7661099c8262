//! The emulator: Debian's QEMU from the cache, or the machine's own.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::kernels::Packages;
use super::packages;
use super::report::say;

/// For a QEMU of the user's choice.
const QEMU_ENV: &str = "NODEMEDIC_QEMU";

const PROGRAM: &str = "qemu-system-x86_64";

/// With 7.2, two boots of 6.12 in five ended in a panic.
const OLDEST: u32 = 8;

#[derive(Debug, Clone)]
pub(crate) enum Qemu {
    /// As it is found in the search path, or where the user says.
    Installed(PathBuf),
    /// Unpacked, never installed: it is started by its own loader, with its own libraries.
    Unpacked(PathBuf),
}

pub(crate) fn prepare(wanted: &Packages) -> Result<Qemu> {
    if let Some(path) = env::var_os(QEMU_ENV) {
        return Ok(Qemu::Installed(path.into()));
    }
    packages::unpacked("qemu", wanted)
        .map(Qemu::Unpacked)
        .or_else(installed)
}

/// For machines that are not Debian's.
fn installed(unpacking: anyhow::Error) -> Result<Qemu> {
    let advice = format!("QEMU from Debian packages: {unpacking:#}");
    let version = version(PROGRAM).with_context(|| {
        format!("{advice}; and no {PROGRAM} is installed (Debian: qemu-system-x86)")
    })?;
    ensure!(
        version >= OLDEST,
        "{advice}; and the installed {PROGRAM} is of version {version}, older than {OLDEST}"
    );
    say!("{advice}; using the installed {PROGRAM} {version}");
    Ok(Qemu::Installed(PROGRAM.into()))
}

/// `QEMU emulator version 10.0.2 (Debian …)`
fn version(program: &str) -> Result<u32> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "version");
    match words
        .nth(1)
        .and_then(|version| version.split('.').next()?.parse().ok())
    {
        Some(major) => Ok(major),
        None => bail!("{program} --version says {text:?}"),
    }
}

impl Qemu {
    /// What cannot be started, and what to do about it.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Installed(program) => format!(
                "start QEMU, {}: let {QEMU_ENV} name a qemu-system-x86_64, or unset it for Debian's",
                program.display()
            ),
            Self::Unpacked(root) => format!("start QEMU, unpacked in {}", root.display()),
        }
    }

    /// The emulator, ready for its arguments.
    pub(crate) fn command(&self) -> Result<Command> {
        match self {
            Self::Installed(program) => Ok(Command::new(program)),
            Self::Unpacked(root) => unpacked(root),
        }
    }
}

fn unpacked(root: &Path) -> Result<Command> {
    let folders = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|lib| root.join(lib));
    let loader = folders
        .iter()
        .map(|folder| folder.join("ld-linux-x86-64.so.2"))
        .find(|path| path.is_file())
        .with_context(|| format!("no loader in {}", root.display()))?;
    let mut command = Command::new(loader);
    command
        .arg("--library-path")
        .arg(env::join_paths(&folders).context("join the library folders")?)
        .arg(root.join("usr/bin").join(PROGRAM))
        .env(
            "QEMU_MODULE_DIR",
            root.join("usr/lib/x86_64-linux-gnu/qemu"),
        );
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(root.join(data));
    }
    Ok(command)
}
