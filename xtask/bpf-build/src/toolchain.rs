//! Which Rust compiler makes the BPF objects, chosen by looking at what is installed.
//!
//! The stable compiler that builds the agent cannot: rustup ships no `core` for BPF. Debian's
//! rustc-web does; elsewhere a rustup nightly compiles `core` from source.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::TARGET;

/// The major version of LLVM that the linker was made for. Bitcode of a newer one is unreadable
/// to it, and it calls the library by this version's interface.
const LLVM: &str = "22";

/// Names the toolchain: `debian`, or a nightly of rustup such as `nightly-2026-04-20`.
pub(crate) const OVERRIDE: &str = "NODEMEDIC_BPF_TOOLCHAIN";

const DEBIAN: &str = "debian";
const NIGHTLY: &str = "nightly";

/// Where the compiler gets `core` for BPF from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    Prebuilt,
    /// By cargo's unstable `build-std`.
    Source,
}

#[derive(Debug, Clone)]
pub struct Toolchain {
    /// `debian`, or what rustup calls it.
    pub name: String,
    pub rustc: PathBuf,
    pub library: Library,
    /// The library that the compiler itself uses, for bpf-linker.
    pub llvm: PathBuf,
    /// A sentence for a person: what was chosen, and why.
    pub why: String,
}

impl Toolchain {
    /// Debian's if it is there, else rustup's nightly; or what `NODEMEDIC_BPF_TOOLCHAIN` says.
    pub fn choose() -> Result<Self> {
        let Some(name) = wanted() else {
            return Self::first_that_is_there();
        };
        let chosen = match name.as_str() {
            DEBIAN => Self::debian(),
            _ if name.starts_with(NIGHTLY) => Self::rustup(&name),
            _ => Err(anyhow!("it is neither `debian` nor a nightly of rustup")),
        };
        let mut chosen = chosen.with_context(|| format!("use {OVERRIDE}={name}"))?;
        chosen.why = format!("{}, because {OVERRIDE} says so", chosen.rustc.display());
        Ok(chosen)
    }

    /// Whether Debian's, once it is installed, will be chosen.
    pub fn may_be_debians() -> bool {
        wanted().is_none_or(|name| name == DEBIAN)
    }

    fn first_that_is_there() -> Result<Self> {
        Self::debian().or_else(|debian| {
            Self::rustup(NIGHTLY).map_err(|nightly| {
                anyhow!(
                    "no Rust compiler for {TARGET} (`cargo xtask setup` installs one or says how): \
                     Debian's: {debian:#}; rustup's: {nightly:#}"
                )
            })
        })
    }

    fn debian() -> Result<Self> {
        let rustc = Path::new("/usr/bin/rustc");
        ensure!(rustc.exists(), "there is no {}", rustc.display());
        let sysroot = sysroot(rustc)?;
        let core = sysroot.join("lib/rustlib").join(TARGET);
        ensure!(core.exists(), "there is no {}", core.display());
        Ok(Self {
            name: DEBIAN.to_owned(),
            rustc: rustc.to_owned(),
            library: Library::Prebuilt,
            llvm: llvm(rustc, &sysroot)?,
            why: format!(
                "{}, because Debian ships `core` for {TARGET} with it",
                rustc.display()
            ),
        })
    }

    fn rustup(name: &str) -> Result<Self> {
        let which = output("rustup", ["which", "--toolchain", name, "rustc"])?;
        let rustc = PathBuf::from(which);
        let sysroot = sysroot(&rustc)?;
        let source = sysroot.join("lib/rustlib/src/rust/library/core");
        ensure!(
            source.exists(),
            "{name} has no source of `core`: `rustup component add rust-src --toolchain {name}`"
        );
        Ok(Self {
            name: name.to_owned(),
            llvm: llvm(&rustc, &sysroot)?,
            library: Library::Source,
            why: format!(
                "rustup's {name} with rust-src, because Debian's compiler for {TARGET} is not \
                 installed"
            ),
            rustc,
        })
    }

    /// This toolchain's own cargo, never the one of the path: that is rustup's.
    pub(crate) fn cargo(&self) -> Command {
        Command::new(self.rustc.with_file_name("cargo"))
    }

    /// The same for clippy. `cargo clippy` would look for it in cargo's home and on the path first.
    pub(crate) fn clippy(&self) -> Result<Command> {
        let clippy = self.rustc.with_file_name("cargo-clippy");
        ensure!(
            clippy.exists(),
            "there is no {}: install Debian's rust-web-clippy, or rustup's component clippy",
            clippy.display()
        );
        let mut command = Command::new(clippy);
        command.arg("clippy");
        Ok(command)
    }
}

/// What the environment asks for.
fn wanted() -> Option<String> {
    let name = env::var_os(OVERRIDE).filter(|value| !value.is_empty());
    name.map(|name| name.to_string_lossy().into_owned())
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    output(rustc, ["--print", "sysroot"]).map(PathBuf::from)
}

/// The LLVM of a compiler: of the version that the linker knows, as a library that it can load.
fn llvm(rustc: &Path, sysroot: &Path) -> Result<PathBuf> {
    let about = output(rustc, ["--version", "--verbose"])?;
    let version = about
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "));
    let version = version.with_context(|| format!("{} names no LLVM", rustc.display()))?;
    ensure!(
        version.split('.').next() == Some(LLVM),
        "{} has LLVM {version}, the linker needs {LLVM}",
        rustc.display()
    );
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    [sysroot.join("lib"), sysroot.join(multiarch)]
        .iter()
        .find_map(|folder| llvm_in(folder))
        .with_context(|| format!("no libLLVM {LLVM} below {}/lib", sysroot.display()))
}

fn llvm_in(folder: &Path) -> Option<PathBuf> {
    let names = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    names
        .filter(|path| {
            path.file_name()
                .and_then(OsStr::to_str)
                .is_some_and(is_llvm)
        })
        .min()
}

/// Not `libLLVM-22*.so`: rustup's file of that name is a linker script, which cannot be loaded.
fn is_llvm(name: &str) -> bool {
    let version = name.strip_prefix("libLLVM.so.");
    version.is_some_and(|version| version.split(['.', '-']).next() == Some(LLVM))
}

fn output<const N: usize>(program: impl AsRef<OsStr>, arguments: [&str; N]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("RUSTUP_TOOLCHAIN");
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        stderr.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::is_llvm;

    #[test]
    fn only_the_library_of_the_linkers_version_is_taken() {
        assert!(is_llvm("libLLVM.so.22.1"));
        assert!(is_llvm("libLLVM.so.22.1-rust-1.97.0-nightly"));
        assert!(!is_llvm("libLLVM-22-rust-1.97.0-nightly.so"));
        assert!(!is_llvm("libLLVM-15.so"));
        assert!(!is_llvm("libLLVM-14.so.1"));
        assert!(!is_llvm("libLLVMBPFCodeGen.a"));
    }
}
