//! What the configuration allows.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    keys::{Allowed, HOUR, SECOND, Word as _, count, settings, time, words},
    model::{LONGEST, Trigger},
};

settings! {
    /// What the agent may change on this node, for how long, and when it restores the old value.
    pub struct Policy as "treatment_policy" {
        /// Set how long a treatment lasts before the agent undoes it, unless the request gives
        /// another time.
        duration: Duration = HOUR, in Policy::DURATION;
        /// Set how long the agent watches a new treatment. The agent undoes the treatment at once
        /// if another ailment gets worse, and at the end if the verdict of the treated ailment has
        /// not improved.
        watch: Duration = Duration::from_secs(90), in time(SECOND..=HOUR);
        /// Set the time from the end of a treatment until the agent or an alert may start it again.
        cooldown: Duration = Duration::from_secs(300), in Policy::PAUSE;
        /// Set the same time after a treatment that did not help, did harm, or was overridden by
        /// another program.
        backoff: Duration = HOUR, in Policy::PAUSE;
        /// Limit the treatments that the agent and alerts together start in one hour.
        max_per_hour: u32 = 6, in count(1..=60);
        /// Limit how often the agent writes its value again after another program has restored the
        /// old one. The treatment then ends, and its advice names where that value comes from.
        reapply: u32 = 3, in count(0..=100);
        /// Resume a treatment that the stop of the agent undid, if the next agent starts within this
        /// time, as in an upgrade; "0s" resumes none.
        resume_within: Duration = Duration::from_secs(300), in time(Duration::ZERO..=HOUR);
        /// Select what happens to active treatments when the agent stops. `undo`: the agent undoes
        /// them, and the next one resumes them within `resume_within`. `keep`: the next agent undoes them when their time is over; without a next agent
        /// they stay until `nodemedic undo` or a reboot.
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
            Trigger::Manual { .. } => Mode::Manual,
            Trigger::Alert { .. } => Mode::Alert,
            Trigger::Auto => Mode::Auto,
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
