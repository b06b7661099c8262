//! Puts the BPF objects into `OUT_DIR`, where the agent includes each by its ailment's name.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

fn main() -> ExitCode {
    match include_objects() {
        Ok(()) => ExitCode::SUCCESS,
        // By way of a failure, and not of `cargo::error`: cargo then shows the compiler's output.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn include_objects() -> Result<()> {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = agent
        .parent()
        .context("find the workspace around the agent")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("read OUT_DIR: cargo has not set it")?);
    announce_inputs(root);
    for object in bpf_build::build(root)? {
        let to = out.join(&object.name);
        fs::write(&to, object.bytes()?).with_context(|| format!("write {}", to.display()))?;
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
