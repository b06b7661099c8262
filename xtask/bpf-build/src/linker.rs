//! bpf-linker: where it is kept, and how it is shown its LLVM.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{Toolchain, cache_dir};

/// Built for the LLVM that [`Toolchain`] asks of a compiler: move both together.
pub const VERSION: &str = "0.10.4";

/// The linker of one version, in the cache folder: `cargo install --root` puts it there.
#[derive(Debug, Clone)]
pub struct Linker {
    pub root: PathBuf,
}

impl Linker {
    /// Where it belongs, whether it is there or not.
    pub fn place() -> Result<Self> {
        let root = cache_dir()?.join(format!("tools/bpf-linker-{VERSION}"));
        Ok(Self { root })
    }

    pub fn find() -> Result<Self> {
        let linker = Self::place()?;
        ensure!(
            linker.path().exists(),
            "bpf-linker {VERSION} is not at {}: run `cargo xtask setup`",
            linker.path().display()
        );
        Ok(linker)
    }

    pub fn path(&self) -> PathBuf {
        self.root.join("bin/bpf-linker")
    }
}

/// A folder that holds one link, to the toolchain's LLVM.
///
/// bpf-linker loads the first `libLLVM*` that it meets on the library path. The folder where
/// Debian keeps the compiler's has those of other versions too, and a wrong one ends in a crash.
pub(crate) fn llvm_dir(target_dir: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let llvm = &toolchain.llvm;
    let name = llvm
        .file_name()
        .with_context(|| format!("{} is no file", llvm.display()))?;
    let folder = target_dir.join(format!("llvm-{}", toolchain.name));
    let link = folder.join(name);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    match symlink(llvm, &link) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("link {} to {}", link.display(), llvm.display()))
        }
        _ => Ok(folder),
    }
}
