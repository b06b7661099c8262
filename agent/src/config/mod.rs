//! The configuration: a TOML file over the defaults, the flags of `run` over both.
//!
//! Each table is a type that [`settings!`](crate::keys) declares, key by key. From that a file is
//! checked, the defaults are printed and the reference is made.

mod error;
mod load;
mod reference;
pub mod renamed;
mod tables;

pub use error::{Error, Fault};
#[cfg(any(test, fuzzing))]
pub use load::FUZZ;
pub use load::load;
pub use reference::{as_markdown, as_toml};
use serde::Deserialize as _;
pub use tables::{Agent, Format, Level, Log, Metrics};
use toml::de::ValueDeserializer;

use crate::{
    ailments,
    collector::{Collector, Configured, RunningKernel},
    dispatch::Dispatch,
    keys::{Allowed, Key, Table, Value as _, Word as _, allowed},
    model::Treatment,
    node::Node,
    treatment::{Mode, Modes, Policy},
    webhook::Webhook,
};

/// The one list of the tables that are not an ailment's, in the order of the reference.
macro_rules! tables {
    ($($(#[$doc:meta])+ $field:ident: $type:ty,)+) => {
        /// All that can be configured, checked.
        #[derive(Debug)]
        pub struct Config {
            $($(#[$doc])+ pub $field: $type,)+
            /// All ailments in their order, each with its settings.
            pub ailments: Vec<Configured>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($field: Default::default(),)+
                    ailments: ailments::all().into_iter().map(Configured::enabled).collect(),
                }
            }
        }

        impl Config {
            fn tables(&self) -> Vec<&dyn Table> {
                vec![$(&self.$field),+]
            }

            fn tables_mut(&mut self) -> Vec<&mut dyn Table> {
                vec![$(&mut self.$field),+]
            }
        }
    };
}

tables! {
    /// The agent itself.
    agent: Agent,
    /// What it writes to standard error.
    log: Log,
    /// What it exports.
    metrics: Metrics,
    /// Who tells it the names of pods.
    node: Node,
    /// What it may change.
    treatment_policy: Policy,
    /// Who may have each treatment applied.
    treatments: Modes,
    /// Who may ask for it.
    webhook: Webhook,
    /// How `nodemedic dispatch` shares alerts out.
    dispatch: Dispatch,
}

impl Config {
    /// Sets a key of a table, as a flag of the command line does.
    ///
    /// # Errors
    ///
    /// When the value has not the key's type.
    pub fn set(&mut self, table: &str, key: &str, value: toml::Value) -> Result<(), Error> {
        let mut tables = self.tables_mut().into_iter();
        let set = tables
            .find(|it| it.name() == table)
            .map_or(Ok(()), |it| it.set(key, value));
        set.map_err(|cause| Error::Flag {
            key: format!("{table}.{key}"),
            cause,
        })
    }

    /// What the ailments that are observed ask.
    pub fn kernel(&self) -> RunningKernel {
        let observed = self.ailments.iter().filter(|case| case.enabled);
        RunningKernel::of(observed.map(|case| case.collector.as_ref()))
    }
}

/// The key that the configuration adds to each ailment's own.
const ENABLED: Key = Key {
    name: "enabled",
    allowed: Allowed::Switch,
    help: "Observe this ailment.",
    flag: None,
};

/// What may stand in an ailment's table.
fn keys_of(collector: &dyn Collector) -> Vec<Key> {
    [&[ENABLED], collector.about().keys].concat()
}

/// Its keys are the treatments, whatever ailment they are against.
impl Table for Modes {
    fn name(&self) -> &'static str {
        "treatments"
    }

    fn help(&self) -> &'static str {
        "What may start each treatment. `off`: nothing. `dry-run`: a person with --apply; without it, \
         nodemedic reports what it would do. `manual`: a person, without --apply too. `alert`: also \
         an alert. `auto`: also the agent itself."
    }

    fn keys(&self) -> Vec<Key> {
        let key = |(_, treatment): (&str, &'static Treatment)| Key {
            name: treatment.name,
            allowed: allowed(&[], Mode::ALLOWED),
            help: treatment.effect,
            flag: None,
        };
        ailments::treatments().into_iter().map(key).collect()
    }

    fn values(&self) -> Result<toml::Table, toml::ser::Error> {
        let mode = |key: Key| {
            let mode = self.get(key.name).copied().unwrap_or_default();
            (key.name.to_owned(), mode.word().into())
        };
        Ok(Table::keys(self).into_iter().map(mode).collect())
    }

    fn read(&mut self, table: ValueDeserializer<'_>) -> Result<(), toml::de::Error> {
        *self = Self::deserialize(table)?;
        Ok(())
    }

    fn set(&mut self, key: &str, value: toml::Value) -> Result<(), toml::de::Error> {
        self.insert(key.to_owned(), Mode::deserialize(value)?);
        Ok(())
    }
}
