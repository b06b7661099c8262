//! Installs what the build needs and this machine lacks. Quick when nothing is missing.

use std::env;

use anyhow::{Result, bail};
use bpf_build::{LINKER_VERSION, Linker, Toolchain};

use crate::{apt, build_dir, cargo};

#[derive(clap::Args)]
pub(crate) struct Args {}

/// Debian's compiler with `core` for BPF. The linter comes along, it is small.
const DEBIAN_PACKAGES: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "rust-web-clippy",
];

/// A program that tests call, and its package.
const TEST_PROGRAMS: [(&str, &str); 4] = [
    // These build a kernel module.
    ("make", "make"),
    ("xz", "xz-utils"),
    // Fetches the schemas of Kubernetes.
    ("pip3", "python3-pip"),
    // Checks the service's unit.
    ("systemd-analyze", "systemd"),
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

/// What some tests need beside the build. They are left out where it is missing.
pub(crate) fn ensure_for_tests() -> Result<()> {
    let missing = TEST_PROGRAMS
        .iter()
        .filter(|(program, _)| !on_path(program));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty() && apt::is_ours() {
        apt::install(&packages)?;
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).exists())
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
    if !apt::is_ours() {
        bail!(
            "{missing:#}; install one: on Debian `apt-get install {packages}` as root, elsewhere \
             `rustup toolchain install nightly --component rust-src`"
        );
    }
    apt::install(&DEBIAN_PACKAGES)?;
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
            .env_remove(build_dir::VARIABLE)
            // Its work is LLVM's: optimizing the rest takes longer than it ever saves.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        cargo::run(&mut install)?;
    }
    Ok(linker)
}
