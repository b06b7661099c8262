//! From a kernel package to what QEMU boots: `vmlinuz`, and an archive of modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::archive::Archive;
use super::kernels::Kernel;
use super::packages::Apt;
use super::report::say;
use super::{cache, modules, unfixed};
use crate::files;

#[derive(Debug, Clone)]
pub(crate) struct KernelImage {
    pub(crate) vmlinuz: PathBuf,
    pub(crate) modules: PathBuf,
}

/// Left in a cache entry that holds another package than the pin.
const SUBSTITUTE: &str = "substitute";

/// A kernel of the matrix, fetched if it is not in the cache.
pub(crate) fn prepare(kernel: &Kernel) -> Result<KernelImage> {
    let entry = entry(kernel).with_context(|| format!("prepare kernel {}", kernel.name))?;
    if let Ok(substitute) = fs::read_to_string(entry.join(SUBSTITUTE)) {
        say!(
            "ATTENTION: {} {} is gone from the archive, and kernel {} is {substitute} instead: \
             move the pin in tests/kernels.toml",
            kernel.package,
            kernel.version,
            kernel.name
        );
    }
    Ok(KernelImage {
        vmlinuz: entry.join("vmlinuz"),
        modules: entry.join("modules.cpio"),
    })
}

/// Looked for by the pin: with it in the cache, no archive is asked.
fn entry(kernel: &Kernel) -> Result<PathBuf> {
    let unfixed = kernel
        .unfixed
        .then(|| unfixed::module(kernel))
        .transpose()?;
    let inputs = (&kernel.version, modules::WANTED, &unfixed);
    cache::entry("kernels", &kernel.package, inputs, |target| {
        let apt = Apt::open(&kernel.suites)?;
        let (package, version) = apt.choose(kernel)?;
        say!("fetching {package} {version}");
        if (&package, &version) != (&kernel.package, &kernel.version) {
            write(&target.join(SUBSTITUTE), &format!("{package} {version}"))?;
        }
        let unpacked = target.join("unpacked");
        apt.unpack_kernel(&package, &version, &unpacked)?;
        if let Some(module) = &unfixed {
            unfixed::replace(module, &modules_folder(&unpacked)?)?;
        }
        extract(&unpacked, target).with_context(|| format!("take {package} apart"))?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("remove {}", unpacked.display()))
    })
}

fn extract(unpacked: &Path, target: &Path) -> Result<()> {
    let modules = modules_folder(unpacked)?;
    let release = modules
        .file_name()
        .and_then(|name| name.to_str())
        .with_context(|| format!("{} names no kernel release", modules.display()))?;
    copy(
        &vmlinuz(unpacked, &modules, release),
        &target.join("vmlinuz"),
    )?;
    archive(&modules, release, &target.join("modules.cpio"))
}

/// Debian moved `/lib` into `/usr/lib` on the way.
fn modules_folder(unpacked: &Path) -> Result<PathBuf> {
    let parents = [
        unpacked.join("lib/modules"),
        unpacked.join("usr/lib/modules"),
    ];
    let parent = parents
        .iter()
        .find(|parent| parent.is_dir())
        .context("the package holds no lib/modules")?;
    let mut entries = fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", parent.display()))?;
    Ok(entry?.path())
}

fn vmlinuz(unpacked: &Path, modules: &Path, release: &str) -> PathBuf {
    let beside = modules.join("vmlinuz");
    if beside.is_file() {
        beside
    } else {
        unpacked.join(format!("boot/vmlinuz-{release}"))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn archive(folder: &Path, release: &str, target: &Path) -> Result<()> {
    let modules = modules::collect(folder)?;
    let mut archive = Archive::create(target)?;
    let path = |file: &str| format!("lib/modules/{release}/{file}");
    for module in &modules {
        archive.file(&path(&module.path), 0o644, &module.image)?;
    }
    let dependencies = modules::dependency_file(&modules);
    archive.file(&path("modules.dep"), 0o644, dependencies.as_bytes())?;
    let aliases = modules::alias_file(&modules);
    archive.file(&path("modules.alias"), 0o644, aliases.as_bytes())?;
    for file in ["modules.builtin", "modules.builtin.modinfo"] {
        let source = folder.join(file);
        if source.is_file() {
            archive.file(&path(file), 0o644, &files::read(&source)?)?;
        }
    }
    archive.finish()
}
