//! The ailments: ways in which the kernel stalls a node.
//!
//! Each is a folder with the same seven files in the order of the flow: `mod`
//! (what it is), `support` (what this kernel offers), `measure`, `judge`,
//! `metrics`, `treat`.

mod address;
mod alarm;
mod counters;
mod durations;
pub mod ipvs_conn_reuse;
pub mod ipvs_estimation;
pub mod psi_stall;
mod ranking;
pub mod udp_conntrack;
mod ward;

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::Keyed,
    kernel::{KernelFacts, Needs},
    metrics::{MetricDef, Sample},
    node::Directory,
    report::{Finding, Missing, ProbeReport, ProgramStats},
    treatment::{Proposal, Switch, Treatment},
};

#[cfg(test)]
pub use ward::sham;
pub use ward::{About, Host, RunningKernel, Ward};

/// All ailments there are, in the order of reports.
pub fn all() -> Vec<Box<dyn Ward>> {
    vec![
        ward::of::<udp_conntrack::UdpConntrack>(),
        ward::of::<ipvs_conn_reuse::IpvsConnReuse>(),
        ward::of::<ipvs_estimation::IpvsEstimation>(),
        ward::of::<psi_stall::PsiStall>(),
    ]
}

/// All treatments there are, each with its ailment, in the order of reports.
pub fn treatments() -> Vec<(&'static str, &'static Treatment)> {
    let wards = all().into_iter().map(|ward| ward.about());
    wards
        .flat_map(|about| about.treatments.iter().map(move |it| (about.name, *it)))
        .collect()
}

/// Whether findings of this kind come and go with the load of a node, so that one which comes
/// while a treatment is watched is no sign that it harms.
pub fn follows_load(ailment: &str, kind: &str) -> bool {
    let wards = all().into_iter().map(|ward| ward.about());
    let ailment = wards.filter(|about| about.name == ailment);
    ailment
        .flat_map(|about| about.follow_load)
        .any(|it| *it == kind)
}

/// What treatments can switch on and off in the agent itself.
pub fn switches() -> Vec<&'static Switch> {
    vec![&ipvs_conn_reuse::SWEEP_DEAD]
}

/// One way in which the kernel stalls a node.
///
/// `support`, `judge`, `notes` and `samples` are pure: no I/O, no clock. A reading that
/// was saved therefore replays to the same verdict.
pub trait Ailment: Send + Sync + 'static {
    /// Folder, label, configuration table, argument on the command line.
    const NAME: &'static str;
    /// One sentence: what it does to a node.
    const SUMMARY: &'static str;
    /// What has to be known of the kernel before `support` can answer.
    const NEEDS: Needs;
    /// The module whose functions it probes; waited for while it is absent or
    /// nobody uses it. `None` where all is part of every kernel.
    const MODULE: Option<&'static str>;
    /// Its metrics, the only definition.
    const METRICS: &'static [MetricDef];
    /// The kinds of its findings.
    const FINDINGS: &'static [&'static str];
    /// Those of them that come and go with the load of a node.
    const FOLLOW_LOAD: &'static [&'static str] = &[];
    /// What can be done against it, safest first.
    const TREATMENTS: &'static [&'static Treatment];

    /// Its table of the configuration: limits of the verdict, sizes of maps.
    type Settings: Keyed + Clone + Send + Sync;
    /// What `support` decided to attach.
    type Plan: Send;
    /// The running measurement. Dropping it detaches all.
    type Probe: Send;
    /// What one tick measured.
    type Reading: Clone + Serialize + DeserializeOwned + Send;

    /// Which probes this kernel supports.
    fn support(facts: &KernelFacts) -> Support<Self::Plan>;

    /// Attaches what the plan names. A probe that the kernel refuses in spite of
    /// the plan is reported by [`Self::probes`], not an error: the baseline goes on.
    ///
    /// # Errors
    ///
    /// When not even the baseline can be read.
    fn attach(plan: Self::Plan, settings: &Self::Settings) -> anyhow::Result<Self::Probe>;

    /// Each probe, with the hook in use or the reason for none.
    fn probes(probe: &Self::Probe) -> Vec<ProbeReport>;

    /// Reads all counters. Called once a tick, on a thread that may block.
    ///
    /// # Errors
    ///
    /// When the baseline cannot be read; the next tick tries again.
    fn measure(probe: &mut Self::Probe, window: Duration) -> anyhow::Result<Self::Reading>;

    /// Puts the names of those whom the reading tells of into it, so that it replays with
    /// them. Called after each reading; it takes what is known and waits for nobody.
    fn identify(_reading: &mut Self::Reading, _directory: &Directory) {}

    /// What is wrong, worst first.
    fn judge(reading: &Self::Reading, settings: &Self::Settings) -> Vec<Finding>;

    /// What a user should know although nothing is wrong, in whole sentences.
    fn notes(_reading: &Self::Reading) -> Vec<String> {
        Vec::new()
    }

    /// What each treatment would be on this node now, safest first.
    fn proposals(reading: &Self::Reading) -> Vec<Proposal>;

    /// The reading as metrics.
    fn samples(reading: &Self::Reading) -> Vec<Sample>;

    /// Events that the probes lost since they were attached, by reason.
    fn lost_events(reading: &Self::Reading) -> Vec<(String, u64)>;

    /// Whether nothing but these probes uses the module any more. They are detached
    /// then, since a program on a module's function keeps it from being unloaded.
    fn idle(probe: &Self::Probe) -> bool;

    /// Run statistics of the BPF programs; empty unless they are switched on.
    fn programs(probe: &Self::Probe) -> Vec<ProgramStats>;
}

/// How far a kernel supports an ailment.
#[derive(Debug)]
pub enum Support<P> {
    /// At least the baseline; the plan says which probes.
    Yes(P),
    /// Nothing to measure until [`Ailment::MODULE`] is loaded, and used.
    Waiting,
    /// Nothing can be measured.
    No(Missing),
}
