//! How the cargo of the BPF toolchain is called, often from inside another cargo.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{Library, TARGET, Toolchain};

/// Of the workspace's Cargo.toml.
pub(crate) const PROFILE: &str = "bpf";

/// Says what to compile, for what, with what and into which folder.
pub(crate) fn select(cargo: &mut Command, root: &Path, toolchain: &Toolchain) {
    forget_outer_cargo(cargo);
    cargo
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        // aya-ebpf uses unstable features, which only this variable opens on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags())
        .args(["--package=ebpf", "--bins", "--features=probes", "--locked"])
        .args(["--profile", PROFILE, "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir(root));
    if toolchain.library == Library::Source {
        cargo.arg("-Zbuild-std=core");
    }
}

/// What cargo says to a build script, or to the program that it runs, is not meant for the cargo
/// that these start: the profile, compiler and flags of the agent would end up in the objects.
/// The job server stays, so that both together keep to the machine's CPUs.
fn forget_outer_cargo(command: &mut Command) {
    const KEEP: [&str; 3] = ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_BUILD_JOBS"];
    const KEEP_PREFIXES: [&str; 4] = [
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTRIES_",
        "CARGO_TERM_",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let of_cargo = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        let kept = KEEP.contains(&text) || KEEP_PREFIXES.iter().any(|p| text.starts_with(p));
        if of_cargo && !kept {
            command.env_remove(&name);
        }
    }
}

fn rustflags() -> String {
    [
        // The register layout that kprobe arguments are read with: that of this machine.
        &format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        // bpf-linker makes the BTF of the objects from the debug information.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ]
    .join("\x1f")
}

pub(crate) fn target_dir(root: &Path) -> PathBuf {
    root.join("target/bpf")
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {command:?}"))?;
    ensure!(
        status.success(),
        "{} ended with {status}",
        command.get_program().display()
    );
    Ok(())
}
