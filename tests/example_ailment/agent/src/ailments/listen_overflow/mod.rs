//! A process accepts connections more slowly than they arrive; its listener is full, and the kernel
//! drops connection requests, which their clients repeat after a second.

mod advice;
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
    wakeup::WakeUp,
};

/// See the module.
#[derive(Debug)]
pub struct ListenOverflow;

impl Ailment for ListenOverflow {
    const NAME: &'static str = "listen_overflow";
    const SUMMARY: &'static str = "full listeners drop connection requests";
    const NEEDS: Needs = support::NEEDS;
    const MODULE: Option<&'static str> = None;
    const METRICS: &'static [MetricDef] = metrics::ALL;
    const FINDINGS: &'static [FindingKind] = judge::KINDS;
    const TREATMENTS: &'static [&'static Treatment] = treat::TREATMENTS;

    type Settings = Settings;
    type Shared = ();
    type Plan = Plan;
    type Probe = Measurement;
    type Reading = Reading;

    fn support(facts: &KernelFacts) -> Support<Plan> {
        support::support(facts)
    }

    fn attach(plan: Plan, settings: &Settings, (): &(), _: &WakeUp) -> anyhow::Result<Measurement> {
        Ok(Measurement::attach(&plan, settings))
    }

    fn probes(probe: &Measurement) -> Vec<ProbeReport> {
        probe.probes()
    }

    fn measure(probe: &mut Measurement, window: Duration) -> anyhow::Result<Reading> {
        probe.measure(window)
    }

    fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
        judge::judge(reading, settings)
    }

    fn proposals(reading: &Reading) -> Vec<Proposal> {
        treat::proposals(reading)
    }

    fn samples(reading: &Reading) -> Vec<Sample> {
        metrics::samples(reading)
    }

    fn lost_events(reading: &Reading) -> Vec<(String, u64)> {
        reading.lost_events()
    }

    fn idle(_: &Measurement) -> bool {
        false
    }

    fn programs(probe: &Measurement) -> Vec<ProgramStats> {
        probe.programs()
    }
}
