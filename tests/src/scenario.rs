//! What a scenario is.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::guest::Guest;

/// How a scenario ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// For the host to work with.
    Measured(Value),
    /// It does not apply to this kernel; the reason is shown.
    Skipped(String),
}

/// One experiment in a guest. An error or a panic is its failure.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// `ailment::what_must_hold`, the end of the test's name.
    pub name: &'static str,
    pub run: fn(&Guest) -> Result<Verdict>,
    /// After this long without a verdict it is killed, and has failed.
    pub limit: Duration,
    /// The machine that it runs in.
    pub shape: Shape,
    /// The kernels that it runs on, by their names in `kernels.toml`.
    pub kernels: &'static [&'static str],
}

/// Debian's own kernels.
pub const STOCK: &[&str] = &["5.10", "6.1", "6.12", "newest"];

/// For what depends on how `ip_vs` takes a SYN on a reused tuple.
pub const WITH_UNFIXED: &[&str] = &["5.10", "6.1", "6.12", "newest", "5.10-unfixed"];

/// For what the agent does alike on any kernel: what differs between two kernels shows between these.
pub const OLDEST_AND_NEWEST: &[&str] = &["5.10", "newest"];

/// What a scenario wants of its machine. The scenarios of one shape share one boot, so each shape
/// costs the whole run one boot a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One CPU.
    Usual,
    /// Two CPUs: what one does while the other is busy.
    TwoCpus,
    /// One CPU, and pressure stall information switched off on the kernel's command line.
    WithoutPsi,
    /// One CPU, and lockdown=confidentiality, as Talos boots.
    LockedDown,
    /// Two CPUs, memory and programs for a container runtime with pods, for systemd, and for file
    /// systems.
    Pods,
    /// Two CPUs, and a hundred more that could be plugged in: what the kernel does once for each
    /// possible CPU takes long.
    ManyPossibleCpus,
}

impl Scenario {
    pub const fn new(name: &'static str, run: fn(&Guest) -> Result<Verdict>) -> Self {
        Self {
            name,
            run,
            limit: Duration::from_secs(120),
            shape: Shape::Usual,
            kernels: STOCK,
        }
    }

    /// For one that does not run on all of [`STOCK`], or on more.
    pub const fn kernels(self, kernels: &'static [&'static str]) -> Self {
        Self { kernels, ..self }
    }

    pub(crate) fn runs_on(&self, kernel: &str) -> bool {
        self.kernels.contains(&kernel)
    }

    /// For one that needs longer than the two minutes that are usual.
    pub const fn limit(self, seconds: u64) -> Self {
        Self {
            limit: Duration::from_secs(seconds),
            ..self
        }
    }

    /// For one that needs more CPUs than the one that is usual.
    pub const fn shape(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }
}

/// All scenarios there are.
#[derive(Debug, Clone, Copy)]
pub struct Registry {
    /// Each of these is a test on every kernel of the matrix.
    pub matrix: &'static [Scenario],
    /// The harness's tests of itself, on one kernel.
    pub faulty: &'static [Faulty],
    /// No tests: only what asks for one of these by name runs it.
    pub apart: &'static [Scenario],
    /// Tests that start their VMs themselves.
    pub host: &'static [HostTest],
}

/// A test that runs on the host, beside the VMs of the matrix, one such test at a time.
#[derive(Debug, Clone, Copy)]
pub struct HostTest {
    pub name: &'static str,
    pub run: fn() -> Result<()>,
}

/// A scenario that goes wrong on purpose: the test is that its failure is noticed.
#[derive(Debug, Clone, Copy)]
pub struct Faulty {
    pub scenario: Scenario,
    /// Part of the failure's message.
    pub fails_with: &'static str,
}

impl Registry {
    pub fn find(&self, name: &str) -> Option<&'static Scenario> {
        let faulty = self.faulty.iter().map(|faulty| &faulty.scenario);
        let mut all = self.matrix.iter().chain(faulty).chain(self.apart);
        all.find(|scenario| scenario.name == name)
    }
}
