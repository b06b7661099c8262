//! The matrix, as `kernels.toml` has it.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::scenario::Scenario;

/// Built in, so the test binary needs no file of the checkout.
const FILE: &str = include_str!("../../kernels.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matrix {
    #[serde(rename = "kernel")]
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) qemu: Packages,
    pub(crate) guest: Packages,
    pub(crate) bench: Packages,
    pub(crate) stress: Packages,
    pub(crate) containers: Packages,
    pub(crate) systemd: Packages,
    pub(crate) disks: Packages,
}

#[derive(Debug, Clone, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// What a test's name, and `--kernel`, says.
    pub(crate) name: String,
    pub(crate) suites: Vec<String>,
    /// The pinned package and its version.
    pub(crate) package: String,
    pub(crate) version: String,
    /// The names of all packages of the series, with a `*`: where to look when the pin is gone.
    pub(crate) series: String,
    /// Its `ip_vs` is built again as it was before 5.9.
    #[serde(default)]
    pub(crate) unfixed: bool,
}

/// Packages that are taken together with all that they depend on.
#[derive(Debug, Clone, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Packages {
    pub(crate) suites: Vec<String>,
    pub(crate) packages: Vec<String>,
}

impl Matrix {
    pub(crate) fn load() -> Result<Self> {
        toml::from_str(FILE).context("parse tests/kernels.toml")
    }

    /// Fails for a scenario that is to run on a kernel which is not here.
    pub(crate) fn ensure_knows(&self, scenarios: &[Scenario]) -> Result<()> {
        for scenario in scenarios {
            for name in scenario.kernels {
                ensure!(
                    self.kernels.iter().any(|kernel| kernel.name == *name),
                    "scenario {} is to run on kernel {name:?}, which tests/kernels.toml does not \
                     have; it has {}",
                    scenario.name,
                    self.names()
                );
            }
        }
        Ok(())
    }

    fn names(&self) -> String {
        let names = self.kernels.iter().map(|kernel| kernel.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Leaves only the kernel of this name.
    pub(crate) fn restrict(&mut self, name: &str) -> Result<()> {
        let names = self.names();
        self.kernels.retain(|kernel| kernel.name == name);
        ensure!(
            !self.kernels.is_empty(),
            "no kernel {name:?} in tests/kernels.toml; there are {names}"
        );
        Ok(())
    }
}

impl Kernel {
    /// `5.10` of `linux-image-5.10.*-cloud-amd64`: what names the packages that there is one of for
    /// the whole series.
    pub(crate) fn series_number(&self) -> &str {
        let numbers = self.series.trim_start_matches("linux-image-");
        numbers
            .split_once(".*")
            .map_or(numbers, |(number, _)| number)
    }

    /// Whether a package is of this kernel's series.
    pub(crate) fn fits(&self, package: &str) -> bool {
        let (start, end) = self.series.split_once('*').unwrap_or((&self.series, ""));
        package.starts_with(start) && package.ends_with(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Verdict, WITH_UNFIXED};

    #[test]
    fn each_pin_is_of_its_series() {
        for kernel in Matrix::load().unwrap().kernels {
            assert!(kernel.fits(&kernel.package), "{kernel:?}");
            assert!(!kernel.fits(&format!("{}-dbg", kernel.package)));
        }
    }

    #[test]
    fn the_number_of_a_series_is_in_its_pattern() {
        let matrix = Matrix::load().unwrap();
        assert_eq!(matrix.kernels[0].series_number(), "5.10");
    }

    #[test]
    fn a_scenario_names_kernels_that_there_are() {
        let matrix = Matrix::load().unwrap();
        let scenario = Scenario::new("a::b", |_| Ok(Verdict::Passed));
        matrix.ensure_knows(&[scenario]).unwrap();
        matrix
            .ensure_knows(&[scenario.kernels(WITH_UNFIXED)])
            .unwrap();
        let wrong = scenario.kernels(&["5.10", "5.11"]);
        let error = matrix.ensure_knows(&[scenario, wrong]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("a::b") && error.contains("\"5.11\""),
            "{error}"
        );
    }

    #[test]
    fn one_kernel_can_be_chosen() {
        let mut matrix = Matrix::load().unwrap();
        matrix.restrict("6.1").unwrap();
        assert_eq!(matrix.kernels.len(), 1);
    }

    #[test]
    fn an_unknown_kernel_is_told_which_there_are() {
        let error = Matrix::load().unwrap().restrict("2.4").unwrap_err();
        assert!(error.to_string().contains("5.10, 6.1"), "{error}");
    }
}
