//! Builds the agent as it is shipped: one static file for any kernel of the matrix.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use object::Endianness;
use object::elf::PT_INTERP;
use object::read::elf::{ElfFile64, ProgramHeader as _};

use crate::{cargo, paths, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the BPF objects.
    #[arg(long)]
    bpf: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if !args.bpf {
        return agent();
    }
    setup::ensure()?;
    for object in bpf_build::build(&paths::root())? {
        println!("{}", object.path.display());
    }
    Ok(())
}

/// Leaves the agent at [`paths::agent`], and installs first what that takes.
pub(crate) fn agent() -> Result<()> {
    setup::ensure()?;
    let mut build = cargo::cargo_static("build");
    cargo::run(build.args(["--release", "--package=nodemedic", "--bin=nodemedic"]))?;
    let built = paths::target_dir()
        .join(cargo::TARGET)
        .join("release/nodemedic");
    ensure!(
        is_static(&built)?,
        "{} needs an interpreter: it is not statically linked",
        built.display()
    );
    link(&built, &paths::agent())
}

/// Whether the kernel alone can start it. A static-pie has a dynamic section, but names no dynamic
/// linker.
fn is_static(program: &Path) -> Result<bool> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let elf = ElfFile64::<Endianness>::parse(bytes.as_slice())
        .with_context(|| format!("read the ELF headers of {}", program.display()))?;
    let mut headers = elf.elf_program_headers().iter();
    Ok(!headers.any(|header| header.p_type(elf.endian()) == PT_INTERP))
}

fn link(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    match fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", to.display()));
        }
        _ => {}
    }
    fs::hard_link(from, to).with_context(|| format!("link {} to {}", to.display(), from.display()))
}
