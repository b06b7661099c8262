//! Builds the BPF objects of the crate `ebpf`.
//!
//! Two callers share it: the agent's build script, so that a plain `cargo build` is enough, and
//! `cargo xtask`, which also prepares the tools. It has a target directory of its own, for two
//! reasons: the cargo that runs a build script holds the lock of the outer one, and one set of
//! objects serves every profile and target of the agent.

mod cache;
mod cargo;
mod linker;
mod strip;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::cargo::{PROFILE, run, select, target_dir};

pub use crate::cache::cache_dir;
pub use crate::linker::{Linker, VERSION as LINKER_VERSION};
pub use crate::toolchain::{Library, Toolchain};

/// The target of the objects: little-endian, as is every machine that the agent supports.
const TARGET: &str = "bpfel-unknown-none";

/// The environment variables that the choice of tools depends on.
pub const INPUT_VARIABLES: [&str; 2] = [toolchain::OVERRIDE, cache::OVERRIDE];

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
