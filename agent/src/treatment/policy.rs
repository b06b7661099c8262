//! What the configuration allows.

use std::{collections::BTreeMap, time::Duration};

use super::{course::Trigger, plan::LONGEST};
use crate::config::{Allowed, HOUR, SECOND, Word as _, count, settings, time, words};

settings! {
    /// What the agent may change on this node, for how long, and when it puts it back.
    pub struct Policy as "treatment" {
        /// How long a treatment lasts before it is undone, unless it is asked for with another
        /// time.
        duration: Duration = HOUR, in Policy::DURATION;
        /// After this time a treatment has to have helped, by the verdict of the ailment that it is
        /// against; else it is undone. While it is watched, it is undone at once if another ailment
        /// gets worse.
        watch: Duration = Duration::from_secs(90), in time(SECOND..=HOUR);
        /// After the end of a treatment, how long before the agent or an alert may begin it again.
        cool_down: Duration = Duration::from_secs(300), in Policy::PAUSE;
        /// The same after a treatment that did not help, that harmed, or that somebody else has
        /// overtaken.
        back_off: Duration = HOUR, in Policy::PAUSE;
        /// How many treatments the agent and alerts may begin in an hour, together.
        per_hour: u32 = 6, in count(1..=60);
        /// How often a value that somebody has set back is written again before the treatment gives
        /// up, and advises the place where that value comes from.
        reapply: u32 = 3, in count(0..=100);
        /// What an agent that is told to end does with active treatments: undo them, or keep them
        /// for the next agent, which undoes them when their time is over. Without a next agent they
        /// stay until `nodemedic undo` or a reboot.
        at_exit: AtExit = AtExit::Undo;
    }
    beside them {
        /// Who may have each treatment applied.
        modes: Modes;
    }
}

words! {
    /// What an ending agent does with active treatments.
    #[derive(Default)]
    pub enum AtExit {
        /// Puts all back.
        #[default]
        Undo = "undo",
        /// Leaves them to the next agent, which puts them back when their time is over.
        Keep = "keep",
    }
}

words! {
    /// Who may have a treatment applied; each mode allows what those before it do.
    #[derive(Default)]
    pub enum Mode {
        /// Nobody.
        Off = "off",
        /// A person who says so on the command line; the agent says what it would do.
        #[default]
        DryRun = "dry-run",
        /// A person.
        Manual = "manual",
        /// An alert too.
        Alert = "alert",
        /// The agent by itself too.
        Auto = "auto",
    }
}

/// By treatment; those that are missing are [`Mode::DryRun`].
pub type Modes = BTreeMap<String, Mode>;

impl Policy {
    const DURATION: Allowed = time(SECOND..=LONGEST);
    const PAUSE: Allowed = time(Duration::ZERO..=LONGEST);

    /// This, with who may have each treatment applied.
    pub fn with(self, modes: Modes) -> Self {
        Self { modes, ..self }
    }

    /// Who may have this treatment applied.
    pub fn mode(&self, treatment: &str) -> Mode {
        self.modes.get(treatment).copied().unwrap_or_default()
    }

    /// The least mode in which this trigger applies a treatment without being told to.
    pub(super) const fn needs(trigger: &Trigger) -> Mode {
        match trigger {
            Trigger::Hand { .. } => Mode::Manual,
            Trigger::Alert { .. } => Mode::Alert,
            Trigger::Agent => Mode::Auto,
        }
    }

    /// A time limit, as the command line takes it.
    ///
    /// # Errors
    ///
    /// A sentence that says what is allowed.
    pub fn parse_duration(text: &str) -> Result<Duration, String> {
        Self::DURATION.check(&toml::de::DeValue::String(text.into()))?;
        humantime::parse_duration(text).map_err(|error| error.to_string())
    }
}

impl Mode {
    /// What the configuration calls it.
    pub fn name(self) -> &'static str {
        self.word()
    }
}
