//! Builds the BPF objects of the crate `ebpf`.
//!
//! Two callers share it: the agent's build script, so that a plain `cargo build` is enough, and
//! `cargo xtask`, which also prepares the tools. It has a target directory of its own, for two
//! reasons: the cargo that runs a build script holds the lock of the outer one, and one set of
//! objects serves every profile and target of the agent.

mod cache;
mod linker;
mod strip;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

pub use cache::cache_dir;
pub use linker::{Linker, VERSION as LINKER_VERSION};
pub use toolchain::{LLVM, Library, OVERRIDE, Toolchain};

/// The target of the objects: little-endian, as is every machine that the agent supports.
pub const TARGET: &str = "bpfel-unknown-none";

/// The environment variables that the choice of tools depends on.
pub const INPUT_VARIABLES: [&str; 2] = [OVERRIDE, cache::OVERRIDE];

const PROFILE: &str = "bpf";

/// One object file: the programs and maps of one ailment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The ailment's folder in `ebpf/src`, and the name of the binary.
    pub name: String,
    pub path: PathBuf,
}

impl Object {
    /// The object as the agent carries it: all that the kernel is given, and no more.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let bytes =
            fs::read(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        strip::without_dwarf(&bytes).with_context(|| format!("strip {}", self.path.display()))
    }
}

/// Builds what is not fresh and returns all objects. `root` is the workspace.
pub fn build(root: &Path) -> Result<Vec<Object>> {
    let toolchain = Toolchain::choose()?;
    let linker = Linker::find()?;
    let mut cargo = toolchain.cargo();
    cargo.arg("build");
    select(&mut cargo, root, &toolchain);
    cargo
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker.path())
        .env(
            "LD_LIBRARY_PATH",
            linker::llvm_dir(&target_dir(root), &toolchain)?,
        );
    run(&mut cargo)?;
    objects(root)
}

/// Runs the linter of the BPF toolchain over the programs; a warning is a failure.
pub fn lint(root: &Path) -> Result<()> {
    let toolchain = Toolchain::choose()?;
    let mut clippy = toolchain.clippy()?;
    select(&mut clippy, root, &toolchain);
    run(clippy.args(["--", "--deny=warnings"]))
}

/// The files that the objects are made from.
pub fn input_files(root: &Path) -> impl Iterator<Item = PathBuf> {
    let names = ["ebpf/src", "ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"];
    names.into_iter().map(|name| root.join(name))
}

/// Says what to compile, for what, with what and into which folder.
fn select(cargo: &mut Command, root: &Path, toolchain: &Toolchain) {
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
    for (name, _) in std::env::vars_os() {
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
        &format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        // bpf-linker makes the BTF of the objects from the debug information.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ]
    .join("\x1f")
}

/// Every folder of `ebpf/src` with a `probes.rs` is an object of the folder's name.
fn objects(root: &Path) -> Result<Vec<Object>> {
    let source = root.join("ebpf/src");
    let built = target_dir(root).join(TARGET).join(PROFILE);
    let mut objects = Vec::new();
    for entry in fs::read_dir(&source).with_context(|| format!("list {}", source.display()))? {
        let entry = entry.with_context(|| format!("list {}", source.display()))?;
        if entry.path().join("probes.rs").exists() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = built.join(&name);
            ensure!(
                path.exists(),
                "{name} has probes.rs, but ebpf/Cargo.toml has no [[bin]] for it"
            );
            objects.push(Object { name, path });
        }
    }
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(objects)
}

fn target_dir(root: &Path) -> PathBuf {
    root.join("target/bpf")
}

fn run(command: &mut Command) -> Result<()> {
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
