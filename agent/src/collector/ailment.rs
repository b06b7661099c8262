//! What an ailment implements, in the order of the flow.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    kernel::KernelFacts,
    keys::Keyed,
    model::{
        Finding, FindingKind, MetricDef, Missing, Needs, ProbeReport, ProgramStats, Proposal,
        Sample, Switch, Treatment,
    },
    node::Directory,
    wakeup::WakeUp,
};

/// One way in which the kernel stalls a node.
///
/// `support`, `judge`, `unknown`, `notes` and `samples` are pure: no I/O, no clock. A reading that
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
    const FINDINGS: &'static [FindingKind];
    /// What can be done against it, safest first.
    const TREATMENTS: &'static [&'static Treatment];

    /// Its table of the configuration: limits of the verdict, sizes of maps.
    type Settings: Keyed + Clone + Send + Sync;
    /// What its measurement and its treatments share; `()` where they share nothing.
    type Shared: Default + Send;
    /// What `support` decided to attach.
    type Plan: Send;
    /// The running measurement. Dropping it detaches all.
    type Probe: Send;
    /// What one tick measured.
    type Reading: Clone + Serialize + DeserializeOwned + Send;

    /// Which probes this kernel supports.
    fn support(facts: &KernelFacts) -> Support<Self::Plan>;

    /// What its treatments can switch on and off in the agent itself.
    fn switches(_shared: &Self::Shared) -> Vec<Arc<dyn Switch>> {
        Vec::new()
    }

    /// Attaches what the plan names. A probe that the kernel refuses in spite of
    /// the plan is reported by [`Self::probes`], not an error: the baseline goes on.
    ///
    /// Who sees that a reading is wanted before its time asks for it by `wakeup`.
    ///
    /// # Errors
    ///
    /// When not even the baseline can be read.
    fn attach(
        plan: Self::Plan,
        settings: &Self::Settings,
        shared: &Self::Shared,
        wakeup: &WakeUp,
    ) -> anyhow::Result<Self::Probe>;

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

    /// What is wrong, worst first. Of the remedies it gives those that only a person can carry
    /// out; [`judged`] puts the treatments before them.
    fn judge(reading: &Self::Reading, settings: &Self::Settings) -> Vec<Finding>;

    /// What this reading could not have shown, because what would show it is missing, in whole
    /// sentences. Where there is any, a reading without findings is [`Verdict::Unknown`], not
    /// healthy.
    ///
    /// [`Verdict::Unknown`]: crate::model::Verdict::Unknown
    fn unknown(_reading: &Self::Reading, _settings: &Self::Settings) -> Vec<String> {
        Vec::new()
    }

    /// What a user should know although nothing is wrong, in whole sentences.
    fn notes(_reading: &Self::Reading, _settings: &Self::Settings) -> Vec<String> {
        Vec::new()
    }

    /// What each treatment would be on this node now, safest first.
    fn proposals(reading: &Self::Reading) -> Vec<Proposal>;

    /// A process in a network namespace that is not the agent's own, for who sets sysctls there.
    fn process_in(_reading: &Self::Reading, _netns: u32) -> Option<u32> {
        None
    }

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

/// What each treatment would be, and what is wrong, worst first, with what can be done: first the
/// treatments that are proposed against it, then what only a person can do. So no advice differs
/// from a treatment.
pub fn judged<A: Ailment>(
    reading: &A::Reading,
    settings: &A::Settings,
) -> (Vec<Proposal>, Vec<Finding>) {
    let proposals = A::proposals(reading);
    let mut findings = A::judge(reading, settings);
    for finding in &mut findings {
        let against = proposals
            .iter()
            .filter(|it| it.against.contains(&finding.kind));
        let remedy = |proposal: &Proposal| {
            let mut known = A::TREATMENTS.iter();
            let treatment = known.find(|it| it.name == proposal.treatment)?;
            treatment.remedy(A::NAME, proposal, |netns| A::process_in(reading, netns))
        };
        let treatments: Vec<_> = against.filter_map(remedy).collect();
        finding.remedies.splice(..0, treatments);
    }
    (proposals, findings)
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
