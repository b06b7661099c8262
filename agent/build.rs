//! Puts the BPF objects into `OUT_DIR`, where the agent includes each by its ailment's name.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("read OUT_DIR: cargo has not set it")?);
    announce_inputs(&root);
    for object in bpf_build::build(&root)? {
        let to = out.join(&object.name);
        fs::copy(&object.path, &to)
            .with_context(|| format!("copy {} to {}", object.path.display(), to.display()))?;
    }
    Ok(())
}

fn announce_inputs(root: &Path) {
    for file in bpf_build::input_files(root) {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    for variable in bpf_build::INPUT_VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}
