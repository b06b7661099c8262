//! UDP exchanges leave entries in the connection tracking table faster than they
//! expire; when it is full, new flows are dropped and old ones pushed out.

mod advice;
mod findings;
mod judge;
mod measure;
mod metrics;
mod room;
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
pub struct UdpConntrack;

impl Ailment for UdpConntrack {
    const NAME: &'static str = "udp_conntrack";
    const SUMMARY: &'static str = "short UDP exchanges fill the connection tracking table";
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
        Measurement::attach(plan, settings)
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

    fn notes(reading: &Reading, _settings: &Settings) -> Vec<String> {
        judge::notes(reading)
    }

    fn unknown(reading: &Reading, settings: &Settings) -> Vec<String> {
        judge::unknown(reading, settings)
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

    fn idle(probe: &Measurement) -> bool {
        probe.idle()
    }

    fn programs(probe: &Measurement) -> Vec<ProgramStats> {
        probe.programs()
    }
}
