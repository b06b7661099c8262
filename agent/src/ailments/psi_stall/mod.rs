//! Tasks wait for CPU, memory or I/O: who waits, on what, and who makes them wait.

mod advice;
mod causes;
mod findings;
mod judge;
mod measure;
mod metrics;
mod settings;
mod support;
mod treat;

use std::time::Duration;

use measure::Measurement;
pub use measure::Reading;
pub use settings::Settings;
use support::Plan;

use crate::{
    collector::{Ailment, Support},
    kernel::KernelFacts,
    model::{
        Finding, FindingKind, MetricDef, Needs, ProbeReport, ProgramStats, Proposal, Sample,
        Treatment,
    },
    node::Directory,
    wakeup::WakeUp,
};

/// See the module.
#[derive(Debug)]
pub struct PsiStall;

impl Ailment for PsiStall {
    const NAME: &'static str = "psi_stall";
    const SUMMARY: &'static str = "tasks wait for CPU, memory or I/O";
    const NEEDS: Needs = support::NEEDS;
    const MODULE: Option<&'static str> = None;
    const METRICS: &'static [MetricDef] = metrics::ALL;
    const FINDINGS: &'static [FindingKind] = findings::FINDINGS;
    const TREATMENTS: &'static [&'static Treatment] = treat::TREATMENTS;

    type Settings = Settings;
    type Shared = ();
    type Plan = Plan;
    type Probe = Measurement;
    type Reading = Reading;

    fn support(facts: &KernelFacts) -> Support<Plan> {
        support::support(facts)
    }

    fn attach(
        plan: Plan,
        settings: &Settings,
        (): &(),
        wakeup: &WakeUp,
    ) -> anyhow::Result<Measurement> {
        Measurement::begin(plan, settings, wakeup)
    }

    fn probes(probe: &Measurement) -> Vec<ProbeReport> {
        probe.probes()
    }

    fn measure(probe: &mut Measurement, window: Duration) -> anyhow::Result<Reading> {
        probe.measure(window)
    }

    fn identify(reading: &mut Reading, directory: &Directory) {
        reading.identify(directory);
    }

    fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
        judge::judge(reading, settings)
    }

    fn unknown(reading: &Reading, settings: &Settings) -> Vec<String> {
        judge::unknown(reading, settings)
    }

    fn notes(reading: &Reading, settings: &Settings) -> Vec<String> {
        judge::notes(reading, settings)
    }

    fn proposals(reading: &Reading) -> Vec<Proposal> {
        treat::proposals(reading)
    }

    fn samples(reading: &Reading) -> Vec<Sample> {
        metrics::samples(reading)
    }

    fn lost_events(reading: &Reading) -> Vec<(String, u64)> {
        let probed = reading.probed.as_ref();
        probed.map(|it| it.lost.clone()).unwrap_or_default()
    }

    /// No module is kept.
    fn idle(_probe: &Measurement) -> bool {
        false
    }

    fn programs(probe: &Measurement) -> Vec<ProgramStats> {
        probe.programs()
    }
}
