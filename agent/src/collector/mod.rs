//! Runs an ailment whatever its types are: attaches it when the kernel allows,
//! measures it each tick, and turns every failure, panics too, into a report.

mod ailment;
#[cfg(test)]
pub mod fake;
mod guard;
mod host;
#[cfg(test)]
pub mod knowledge;
mod observed;
mod pause;

use std::{fmt, sync::Arc};

use toml::de::ValueDeserializer;

use self::observed::Observed;
pub use self::{
    ailment::{Ailment, Support, judged},
    host::{Host, RunningKernel},
};
use crate::model::{About, AilmentReport, Registry, Switch};

/// An ailment with its settings and, once attached, its probes.
pub trait Collector: fmt::Debug + Send {
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

    /// What its treatments can switch on and off in the agent itself.
    fn switches(&self) -> Vec<Arc<dyn Switch>>;

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

/// An ailment, and whether it is to be observed.
#[derive(Debug)]
pub struct Configured {
    /// The key `enabled` of its table.
    pub enabled: bool,
    /// Carries the other keys.
    pub collector: Box<dyn Collector>,
}

impl Configured {
    /// With its default settings.
    pub fn enabled(collector: Box<dyn Collector>) -> Self {
        Self {
            enabled: true,
            collector,
        }
    }
}

/// A collector of an ailment, with its default settings.
pub fn of<A: Ailment>() -> Box<dyn Collector> {
    Box::new(Observed::<A>::default())
}

/// All that these can do on a node, in the order of reports.
pub fn registry<'c>(collectors: impl IntoIterator<Item = &'c dyn Collector>) -> Registry {
    let (mut treatments, mut switches) = (Vec::new(), Vec::new());
    for collector in collectors {
        let about = collector.about();
        treatments.extend(about.treatments.iter().map(|it| (about.name, *it)));
        switches.extend(collector.switches());
    }
    Registry {
        treatments,
        switches,
    }
}
