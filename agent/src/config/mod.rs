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
    ailments::{self, RunningKernel, Ward},
    dispatch::Dispatch,
    node::Node,
    treatment::{Policy, Treatment},
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
    pub ailments: Vec<Case>,
}

/// An ailment, and whether it is to be observed.
#[derive(Debug)]
pub struct Case {
    /// The key `enabled` of its table.
    pub enabled: bool,
    /// Carries the other keys.
    pub ward: Box<dyn Ward>,
}

impl Config {
    /// What the ailments that are observed ask.
    pub fn kernel(&self) -> RunningKernel {
        let observed = self.ailments.iter().filter(|case| case.enabled);
        RunningKernel::of(observed.map(|case| case.ward.as_ref()))
    }
}

impl Case {
    /// The key that the configuration adds to each ailment's own.
    const ENABLED: Key = Key {
        name: "enabled",
        allowed: Allowed::Switch,
        help: "Whether this ailment is observed.",
    };
}

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
                .map(|ward| Case {
                    enabled: true,
                    ward,
                })
                .collect(),
        }
    }
}
