//! All checks that run nothing of the agent but its own description.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::{cargo, docs, paths, prose, setup};

#[derive(clap::Args)]
pub(crate) struct Args {}

/// A check: what it is called, and what does it.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 6] = [
    ("format", format),
    ("prose", prose::check),
    ("lints, host", host_clippy),
    ("lints, BPF", bpf_clippy),
    ("dependencies", dependencies),
    ("generated pages", docs::check),
];

/// Its files that no other of its files is a module of.
const EXAMPLE: [&str; 4] = [
    "agent/src/ailments/listen_overflow/mod.rs",
    "ebpf/src/listen_overflow/mod.rs",
    "ebpf/src/listen_overflow/probes.rs",
    "tests/scenarios/listen_overflow.rs",
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

/// Of the example too, which is part of no package.
fn format() -> Result<()> {
    cargo::run(cargo::cargo("fmt").args(["--all", "--check"]))?;
    let example = EXAMPLE.map(|file| paths::root().join("tests/example_ailment").join(file));
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.current_dir(paths::root()).arg("--check");
    cargo::run(rustfmt.args(example))
}

fn host_clippy() -> Result<()> {
    let mut clippy = cargo::cargo("clippy");
    cargo::run(clippy.args(["--workspace", "--all-targets", "--", "--deny=warnings"]))
}

fn bpf_clippy() -> Result<()> {
    bpf_build::lint(&paths::root())
}

/// Licences, duplicates, sources and advisories, where the tool for it is installed: compiling it
/// takes longer than all the rest.
fn dependencies() -> Result<()> {
    let Some(program) = cargo_deny()? else {
        eprintln!("skipped: no cargo-deny (`cargo install --locked cargo-deny`)");
        return Ok(());
    };
    let deny = |arguments: &[&str]| {
        let mut deny = Command::new(&program);
        deny.current_dir(paths::root()).arg("--workspace");
        cargo::run(deny.args(arguments))
    };
    deny(&["check", "bans", "licenses", "sources"])?;
    // The list of advisories is where not every network leads.
    if let Err(error) = deny(&["fetch", "db"]) {
        eprintln!("advisories skipped: {error:#}");
        return Ok(());
    }
    deny(&["check", "--disable-fetch", "advisories"])
}

/// On the path, else beside the linker: `cargo install --root` can put it there.
fn cargo_deny() -> Result<Option<PathBuf>> {
    let kept = bpf_build::cache_dir()?.join("tools/cargo-deny/bin/cargo-deny");
    let mut places = [PathBuf::from("cargo-deny"), kept].into_iter();
    Ok(places.find(|program| {
        let mut version = Command::new(program);
        let version = version.arg("--version").stdout(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    }))
}
