//! All checks that run nothing of the agent but its own description.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::{cargo, docs, paths, setup};

#[derive(clap::Args)]
pub(crate) struct Args {}

/// A check: what it is called, and what does it.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 5] = [
    ("format", format),
    ("lints, host", host_clippy),
    ("lints, BPF", bpf_clippy),
    ("dependencies", dependencies),
    ("generated pages", docs::check),
];

/// Runs all checks, also after one has failed: a person wants the whole list at once.
pub(crate) fn run(_: Args) -> Result<()> {
    setup::ensure()?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        eprintln!("== {name}");
        if let Err(error) = check() {
            eprintln!("{error:#}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

fn format() -> Result<()> {
    cargo::run(cargo::cargo("fmt").args(["--all", "--check"]))
}

fn host_clippy() -> Result<()> {
    let mut clippy = cargo::cargo("clippy");
    cargo::run(clippy.args(["--workspace", "--all-targets", "--", "--deny=warnings"]))
}

fn bpf_clippy() -> Result<()> {
    bpf_build::lint(&paths::root())
}

/// Licences, advisories, duplicates and sources, where the tool for it is installed: compiling it
/// takes longer than all the rest.
fn dependencies() -> Result<()> {
    let mut version = Command::new("cargo-deny");
    if version
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        eprintln!("skipped: no cargo-deny (`cargo install --locked cargo-deny`)");
        return Ok(());
    }
    cargo::run(cargo::cargo("deny").args(["--workspace", "check"]))
}
