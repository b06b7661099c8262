//! The build folder in the cache: a clone does not compile again what another one has compiled.
//!
//! Cargo names what it compiles of a workspace by the path inside that workspace, and takes it as
//! fresh when it is newer than the sources. Of two checkouts, one would get the code of the other.
//! So the folder belongs to one checkout at a time, and who takes it over keeps only the
//! dependencies.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{cargo, paths};

/// What cargo takes the folder from.
pub(crate) const VARIABLE: &str = "CARGO_BUILD_BUILD_DIR";

/// All that xtask builds with.
const PROFILES: [&str; 2] = ["dev", "release"];

/// The folder and the lock on it, which is held until this process ends, and the program that it
/// becomes.
struct Claim {
    folder: PathBuf,
    _lock: File,
}

/// Has cargo use the shared folder, unless the user named one, or another checkout is at work in
/// it.
pub(crate) fn choose(command: &mut Command) {
    static CLAIM: OnceLock<Option<Claim>> = OnceLock::new();
    if env::var_os(VARIABLE).is_some() {
        return;
    }
    let claim = CLAIM.get_or_init(|| match claim() {
        Ok(claim) => claim,
        Err(error) => {
            eprintln!("warning: compiled dependencies are not shared: {error:#}");
            None
        }
    });
    if let Some(claim) = claim {
        command.env(VARIABLE, &claim.folder);
    }
}

/// `None` while another checkout is at work.
fn claim() -> Result<Option<Claim>> {
    let folder = bpf_build::cache_dir()?.join("build");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join("checkout");
    let owner = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let claimed = own(owner, &folder, &paths::root())
        .with_context(|| format!("take over {}", folder.display()))?;
    if claimed.is_none() {
        eprintln!("{} is in use by another checkout", folder.display());
    }
    Ok(claimed)
}

/// Processes of one checkout hold the lock together; a change of owner needs it alone.
fn own(mut owner: File, folder: &Path, root: &Path) -> Result<Option<Claim>> {
    owner.lock_shared()?;
    if !is(&mut owner, root)? {
        if owner.try_lock().is_err() {
            return Ok(None);
        }
        for profile in PROFILES {
            // Programs in the checkout's own target folder stay: this may be one of them.
            cargo::run(
                Command::new(cargo::program())
                    .args(["clean", "--quiet", "--workspace", "--profile", profile])
                    .args(["--target", cargo::TARGET, "--target-dir"])
                    .arg(folder)
                    .current_dir(root)
                    .env(VARIABLE, folder),
            )?;
        }
        owner.set_len(0)?;
        owner.rewind()?;
        owner.write_all(root.as_os_str().as_bytes())?;
        owner.lock_shared()?;
    }
    // It outlives the exec that makes this process the test runner.
    fcntl_setfd(&owner, FdFlags::empty())?;
    Ok(Some(Claim {
        folder: folder.to_owned(),
        _lock: owner,
    }))
}

fn is(owner: &mut File, root: &Path) -> Result<bool> {
    let mut recorded = Vec::new();
    owner.rewind()?;
    owner.read_to_end(&mut recorded)?;
    Ok(recorded == root.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package that prints `word`, as old as any file of a clone that was made long ago.
    fn checkout(folder: &Path, word: &str) -> PathBuf {
        let root = folder.join(word);
        fs::create_dir_all(root.join("src")).unwrap();
        let manifest = "[package]\nname = \"toy\"\nedition = \"2024\"\n[workspace]\n";
        fs::write(root.join("Cargo.toml"), manifest).unwrap();
        let source = root.join("src/main.rs");
        fs::write(&source, format!("fn main() {{ println!(\"{word}\") }}")).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::open(&source).unwrap().set_modified(old).unwrap();
        root
    }

    fn claim_for(root: &Path, folder: &Path) -> Option<Claim> {
        fs::create_dir_all(folder).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let owner = options.open(folder.join("checkout")).unwrap();
        own(owner, folder, root).unwrap()
    }

    /// What it prints, built for the host and for the target.
    fn output_of(root: &Path, folder: &Path) -> String {
        run(root, folder, &[]) + &run(root, folder, &["--release", "--target", cargo::TARGET])
    }

    fn run(root: &Path, folder: &Path, flags: &[&str]) -> String {
        let mut run = Command::new(cargo::program());
        run.args(["run", "--quiet", "--offline"]).args(flags);
        run.current_dir(root);
        run.env(VARIABLE, folder).env_remove("CARGO_TARGET_DIR");
        String::from_utf8(run.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_checkout_gets_its_own_code_and_never_takes_the_folder_from_one_at_work() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("build");
        let (one, other) = (checkout(temp.path(), "one"), checkout(temp.path(), "other"));
        let claim = claim_for(&one, &folder).expect("nobody is at work");
        assert_eq!(output_of(&one, &folder), "one\none\n");
        assert!(
            claim_for(&one, &folder).is_some(),
            "processes of one checkout share it"
        );
        assert!(claim_for(&other, &folder).is_none(), "the first is at work");
        drop(claim);
        let _claim = claim_for(&other, &folder).expect("nobody is at work");
        assert_eq!(output_of(&other, &folder), "other\nother\n");
    }
}
