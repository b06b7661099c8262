//! A client comes back on a port that IPVS still has a connection of: its SYN is
//! dropped and the client waits, or it goes to a server that is drained or gone. A client of UDP
//! that keeps its port stays on such a server.

mod advice;
pub mod dead;
mod findings;
mod judge;
mod layout;
mod measure;
mod metrics;
mod settings;
mod support;
mod treat;

use std::{sync::Arc, time::Duration};

use dead::Sweepers;
use measure::Measurement;
pub use measure::Reading;
pub use settings::Settings;
use support::Plan;

use crate::{
    collector::{Ailment, Support},
    kernel::KernelFacts,
    model::{
        Finding, FindingKind, MetricDef, Needs, ProbeReport, ProgramStats, Proposal, Sample,
        Switch, Treatment,
    },
    node::Directory,
    wakeup::WakeUp,
};

/// See the module.
#[derive(Debug)]
pub struct IpvsConnReuse;

impl Ailment for IpvsConnReuse {
    const NAME: &'static str = "ipvs_conn_reuse";
    const SUMMARY: &'static str =
        "connections on reused client ports wait, or go to servers that are drained or gone";
    const NEEDS: Needs = support::NEEDS;
    const MODULE: Option<&'static str> = Some(support::MODULE);
    const METRICS: &'static [MetricDef] = metrics::ALL;
    const FINDINGS: &'static [FindingKind] = findings::FINDINGS;
    const TREATMENTS: &'static [&'static Treatment] = treat::TREATMENTS;

    type Settings = Settings;
    type Shared = Sweepers;
    type Plan = Plan;
    type Probe = Measurement;
    type Reading = Reading;

    fn support(facts: &KernelFacts) -> Support<Plan> {
        support::support(facts)
    }

    fn switches(sweepers: &Sweepers) -> Vec<Arc<dyn Switch>> {
        vec![Arc::new(sweepers.clone())]
    }

    fn attach(
        plan: Plan,
        settings: &Settings,
        sweepers: &Sweepers,
        _: &WakeUp,
    ) -> anyhow::Result<Measurement> {
        Measurement::attach(plan, settings, sweepers)
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

    fn unknown(reading: &Reading, _: &Settings) -> Vec<String> {
        judge::unknown(reading)
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
