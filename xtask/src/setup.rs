//! Installs what the build needs and this machine lacks. Quick when nothing is missing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use bpf_build::{LINKER_VERSION, Linker, Toolchain};

use crate::cargo;

#[derive(clap::Args)]
pub(crate) struct Args {}

/// Debian's compiler with `core` for BPF. The linter comes along, it is small.
const DEBIAN_PACKAGES: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "rust-web-clippy",
];

pub(crate) fn run(_: Args) -> Result<()> {
    let toolchain = bpf_toolchain()?;
    eprintln!("BPF compiler: {}", toolchain.why);
    let linker = bpf_linker()?;
    eprintln!("BPF linker: {}", linker.path().display());
    Ok(())
}

/// What the other verbs call before they build.
pub(crate) fn ensure() -> Result<()> {
    run(Args {})
}

fn bpf_toolchain() -> Result<Toolchain> {
    let missing = match Toolchain::choose() {
        Ok(toolchain) => return Ok(toolchain),
        Err(error) => error,
    };
    if !Toolchain::may_be_debians() {
        return Err(missing);
    }
    let packages = DEBIAN_PACKAGES.join(" ");
    if !can_apt() {
        bail!(
            "{missing:#}; install one: on Debian `apt-get install {packages}` as root, elsewhere \
             `rustup toolchain install nightly --component rust-src`"
        );
    }
    eprintln!("no compiler for BPF: installing {packages}");
    apt_install(&DEBIAN_PACKAGES)?;
    Toolchain::choose()
}

fn bpf_linker() -> Result<Linker> {
    let linker = Linker::place()?;
    if !linker.path().exists() {
        eprintln!("bpf-linker {LINKER_VERSION}: compiling it once, for a few minutes");
        let mut install = cargo::cargo("install");
        install
            .args(["--locked", "bpf-linker", "--version", LINKER_VERSION])
            .arg("--root")
            .arg(&linker.root)
            // In a folder of its own that cargo removes: the linker shares nothing with us.
            .env_remove("CARGO_TARGET_DIR")
            // Almost all of its work is LLVM's: compiling it in half the time costs it nothing.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        cargo::run(&mut install)?;
    }
    Ok(linker)
}

/// The owner of our own folder in /proc is who we are.
fn can_apt() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0);
    root && Path::new("/etc/debian_version").exists()
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let apt = || {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("--quiet=2");
        command
    };
    cargo::run(apt().arg("update"))?;
    // Nothing of what is installed may go: Debian's compiler conflicts with its rustup package.
    cargo::run(
        apt()
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(packages),
    )
}
