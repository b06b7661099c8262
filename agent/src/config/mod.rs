//! The configuration: a TOML file over the defaults, the flags of `run` over both.
//!
//! Each table is a type with a `Default`, and beside it a list of [`Key`]s from
//! which a file is checked, the defaults are printed and the reference is made.

mod error;
mod key;
mod load;
mod reference;
mod tables;

pub use error::{Error, Fault};
pub use key::{Allowed, Key};
pub use load::load;
pub use reference::{as_markdown, as_toml};
pub use tables::{Agent, Format, Level, Log, Metrics};

use crate::{
    ailments,
    collector::{Configured, RunningKernel},
    dispatch::Dispatch,
    model::Treatment,
    node::Node,
    treatment::Policy,
    webhook::Webhook,
};

/// All that can be configured, checked.
#[derive(Debug)]
pub struct Config {
    /// The agent itself.
    pub agent: Agent,
    /// What it writes to standard error.
    pub log: Log,
    /// What it exports.
    pub metrics: Metrics,
    /// Who tells it the names of pods.
    pub node: Node,
    /// What it may change.
    pub treatment: Policy,
    /// Who may ask for it.
    pub webhook: Webhook,
    /// How `nodemedic dispatch` shares alerts out.
    pub dispatch: Dispatch,
    /// All ailments in their order, each with its settings.
    pub ailments: Vec<Configured>,
}

impl Config {
    /// What the ailments that are observed ask.
    pub fn kernel(&self) -> RunningKernel {
        let observed = self.ailments.iter().filter(|ailment| ailment.enabled);
        RunningKernel::of(observed.map(|ailment| ailment.collector.as_ref()))
    }
}

/// The key that the configuration adds to each ailment's own.
const ENABLED: Key = Key {
    name: "enabled",
    allowed: Allowed::Switch,
    help: "Whether this ailment is observed.",
};

/// The keys of `[treatments]`: one a treatment.
fn treatment_keys() -> Vec<Key> {
    let treatments = ailments::treatments().into_iter();
    let key = |(_, treatment): (&str, &'static Treatment)| Key {
        name: treatment.name,
        allowed: Policy::MODES,
        help: treatment.effect,
    };
    treatments.map(key).collect()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            agent: Agent::default(),
            log: Log::default(),
            metrics: Metrics::default(),
            node: Node::default(),
            treatment: Policy::default(),
            webhook: Webhook::default(),
            dispatch: Dispatch::default(),
            ailments: ailments::all()
                .into_iter()
                .map(|collector| Configured {
                    enabled: true,
                    collector,
                })
                .collect(),
        }
    }
}
