//! What a check is, and the files that the checks read.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Completion, Trial};

/// One test. Its name is a sentence.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    name: &'static str,
    run: fn() -> Result<Verdict>,
}

/// How a check ended without an error.
#[derive(Debug)]
pub(crate) enum Verdict {
    Passed,
    /// This machine lacks something; the reason is shown.
    Skipped(String),
}

/// Something that this machine may have or not.
pub(crate) enum Available<T> {
    Yes(T),
    No { why: String },
}

impl Check {
    pub(crate) const fn new(name: &'static str, run: fn() -> Result<Verdict>) -> Self {
        Self { name, run }
    }

    pub(crate) fn trial(self) -> Trial {
        Trial::ignorable_test(self.name, move || match (self.run)() {
            Ok(Verdict::Passed) => Ok(Completion::Completed),
            Ok(Verdict::Skipped(why)) => Ok(Completion::ignored_with(why)),
            Err(error) => Err(format!("{error:#}").into()),
        })
    }
}

impl<T> Available<T> {
    /// Goes on with it, or skips the check.
    pub(crate) fn then(self, run: impl FnOnce(T) -> Result<Verdict>) -> Result<Verdict> {
        match self {
            Self::Yes(it) => run(it),
            Self::No { why } => Ok(Verdict::Skipped(why)),
        }
    }
}

/// Passes if nothing is wrong, else fails with the whole list.
pub(crate) fn none(faults: Vec<String>) -> Result<Verdict> {
    ensure!(faults.is_empty(), "\n  {}", faults.join("\n  "));
    Ok(Verdict::Passed)
}

/// Passes if one of the faults says this: what a check is for must be found by it.
pub(crate) fn found(faults: &[String], wanted: &str) -> Result<()> {
    if faults.iter().any(|fault| fault.contains(wanted)) {
        return Ok(());
    }
    bail!("nobody said {wanted:?}, but {faults:?}")
}

/// The folder of the checkout.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The files of a folder of the checkout whose names end like this; none is an error.
pub(crate) fn files_of(folder: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root().join(folder)).with_context(|| format!("list {folder}"))?;
    let paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>();
    let mut paths = paths.with_context(|| format!("list {folder}"))?;
    paths.retain(|path| name(path).ends_with(ending));
    paths.sort();
    ensure!(!paths.is_empty(), "{folder} has no file *{ending}");
    Ok(paths)
}

/// The last part of a path.
pub(crate) fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(OsStr::new(""));
    name.to_string_lossy().into_owned()
}

pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
