//! The matrix, as `kernels.toml` has it.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

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
    /// Beginnings of the names of the scenarios that it runs; without any, it runs all.
    #[serde(default)]
    pub(crate) only: Vec<String>,
    /// Parts of the names of those that it does not run.
    #[serde(default)]
    pub(crate) without: Vec<String>,
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

    /// Leaves only the kernel of this name.
    pub(crate) fn restrict(&mut self, name: &str) -> Result<()> {
        let names = self.kernels.iter().map(|kernel| kernel.name.clone());
        let names = names.collect::<Vec<_>>().join(", ");
        self.kernels.retain(|kernel| kernel.name == name);
        ensure!(
            !self.kernels.is_empty(),
            "no kernel {name:?} in tests/kernels.toml; there are {names}"
        );
        Ok(())
    }
}

impl Kernel {
    pub(crate) fn runs(&self, scenario: &str) -> bool {
        let is_left_out = self.without.iter().any(|part| scenario.contains(part));
        let is_in = self.only.is_empty() || self.only.iter().any(|it| scenario.starts_with(it));
        is_in && !is_left_out
    }

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
    fn a_kernel_runs_all_scenarios_or_some() {
        let matrix = Matrix::load().unwrap();
        let (stock, unfixed) = (&matrix.kernels[0], matrix.kernels.last().unwrap());
        assert!(stock.runs("udp_conntrack::x") && stock.runs("ipvs_conn_reuse::x"));
        assert!(unfixed.runs("ipvs_conn_reuse::x") && !unfixed.runs("udp_conntrack::x"));
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
