//! What an ailment is, before it is observed.

use super::{AilmentReport, Coverage, FindingKind, MetricDef, Needs, Treatment};
use crate::keys::Key;

/// What is known of an ailment before it is observed.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// [`Ailment::NAME`]
    pub name: &'static str,
    /// [`Ailment::SUMMARY`]
    pub summary: &'static str,
    /// [`Ailment::NEEDS`]
    pub needs: Needs,
    /// [`Ailment::METRICS`]
    pub metrics: &'static [MetricDef],
    /// [`Ailment::FINDINGS`]
    pub findings: &'static [FindingKind],
    /// The keys of `Ailment::Settings`.
    pub keys: &'static [Key],
    /// [`Ailment::TREATMENTS`]
    pub treatments: &'static [&'static Treatment],
}

impl About {
    /// What there is to report before the first tick has ended.
    pub fn starting(&self) -> AilmentReport {
        AilmentReport::unmeasured(self.name, Coverage::Starting, Vec::new())
    }

    /// What there is to report when it cannot be observed any more.
    pub fn failed(&self, why: &str) -> AilmentReport {
        let why = why.to_owned();
        AilmentReport::unmeasured(self.name, Coverage::Failed { why }, Vec::new())
    }

    /// What there is to report of an ailment that is switched off.
    pub fn off(&self) -> AilmentReport {
        AilmentReport::unmeasured(self.name, Coverage::Off, Vec::new())
    }
}
