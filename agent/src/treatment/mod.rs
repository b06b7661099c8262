//! Treatments: sysctls that are changed for a limited time, watched, and put back.
//!
//! A treatment takes its course in steps, each of which is in the [`journal`] before the
//! next begins, so that an agent that was killed at any point finds out at its next start
//! what it has to undo:
//!
//! ```text
//! guard ──> intended ──write, read back──> applied ──watch──> kept ──> undone
//!             └─────────> failed              └─────────────────────────^
//! ```
//!
//! Beside these ends there are `overtaken`, where somebody else has changed a value
//! since, which is reported and left, and `void`, where the machine has booted since.
//! This folder alone asks [`crate::kernel::sysctl`] to write.

mod counts;
mod course;
mod engine;
mod guard;
mod hands;
mod journal;
mod plan;
mod policy;
mod practice;
mod suspects;
mod vitals;

pub use counts::Counts;
pub use course::{Change, Course, Ending, State, Trigger};
pub use engine::{Ask, Decision, Engine, Intent, Now};
pub use guard::Refusal;
pub use hands::{Hands, Place, Switch, SysctlsAnd};
pub use journal::Journal;
pub use plan::{Bound, Proposal, Treatment};
pub use policy::{AtExit, Mode, Modes, Policy};
pub use practice::{Courses, NotNow, Once, Practice, Resolved, is_paused, pause};

#[cfg(test)]
pub(crate) mod tests;
