//! One pass of the IPVS estimator visits every service and destination once for each
//! possible CPU; where it is a softirq, packets and tasks of its CPU wait for its end.

mod advice;
mod findings;
mod judge;
mod measure;
mod metrics;
mod settings;
mod support;
mod treat;
mod unknown;

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
pub struct IpvsEstimation;

impl Ailment for IpvsEstimation {
    const NAME: &'static str = "ipvs_estimation";
    const SUMMARY: &'static str = "the estimator of IPVS holds a CPU while packets wait for it";
    const NEEDS: Needs = support::NEEDS;
    const MODULE: Option<&'static str> = Some(support::MODULE);
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

    fn unknown(reading: &Reading, _: &Settings) -> Vec<String> {
        unknown::unknown(reading)
    }

    fn notes(reading: &Reading, _: &Settings) -> Vec<String> {
        treat::notes(reading)
    }

    fn proposals(reading: &Reading) -> Vec<Proposal> {
        treat::proposals(reading)
    }

    fn process_in(reading: &Reading, netns: u32) -> Option<u32> {
        reading.process_in(netns)
    }

    fn samples(reading: &Reading) -> Vec<Sample> {
        metrics::samples(reading)
    }

    fn lost_events(reading: &Reading) -> Vec<(String, u64)> {
        reading.lost_events()
    }

    fn idle(probe: &Measurement) -> bool {
        probe.idle()
    }

    fn programs(probe: &Measurement) -> Vec<ProgramStats> {
        probe.programs()
    }
}
