//! Runs an ailment whatever its types are: attaches it when the kernel allows,
//! measures it each tick, and turns every failure, panics too, into a report.

mod guard;
mod host;
mod observed;
mod pause;
#[cfg(test)]
pub mod sham;

use std::fmt;

use toml::de::ValueDeserializer;

pub use self::host::{Host, RunningKernel};
use self::observed::Observed;
use super::Ailment;
use crate::{
    config::Key,
    kernel::Needs,
    metrics::MetricDef,
    report::{AilmentReport, Coverage},
    treatment::Treatment,
};

/// An ailment with its settings and, once attached, its probes.
pub trait Ward: fmt::Debug + Send {
    /// What does not change.
    fn about(&self) -> About;

    /// The settings in force.
    ///
    /// # Errors
    ///
    /// When a value has no form in TOML.
    fn settings(&self) -> Result<toml::Table, toml::ser::Error>;

    /// Replaces the settings, before the first tick.
    ///
    /// # Errors
    ///
    /// When the table does not describe settings of this ailment.
    fn configure(&mut self, table: ValueDeserializer<'_>) -> Result<(), toml::de::Error>;

    /// Attaches, measures or waits, whichever is next. Blocks for as long as the
    /// ailment takes. The tick that attaches gives no reading: no time has passed
    /// yet over which anything could be counted.
    fn tick(&mut self, host: &dyn Host) -> AilmentReport;

    /// Judges a saved report's reading again, with the settings in force.
    ///
    /// # Errors
    ///
    /// When the reading is not one of this ailment.
    fn replay(&self, saved: &mut AilmentReport) -> Result<(), serde_json::Error>;
}

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
    pub findings: &'static [&'static str],
    /// [`Ailment::FOLLOW_LOAD`]
    pub follow_load: &'static [&'static str],
    /// The keys of [`Ailment::Settings`].
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

/// A ward of an ailment, with its default settings.
pub(super) fn of<A: Ailment>() -> Box<dyn Ward> {
    Box::new(Observed::<A>::default())
}
