//! Treatments: sysctls that are changed for a limited time, watched, and put back.
//!
//! A treatment takes its run in steps, each of which is in the [`journal`] before the
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

mod engine;
mod guard;
mod journal;
mod likely_writers;
mod policy;
mod service;
mod writer;

pub use engine::{Ask, AskOutcome, Engine, Intent, Now};
pub use guard::Refusal;
pub use journal::Journal;
pub use policy::{AtExit, Mode, Modes, Policy};
pub use service::{NotNow, Once, Resolved, Runs, TreatmentService, is_paused, pause};
pub use writer::{SysctlTarget, SysctlWriter, SysctlsAndSwitches};

#[cfg(test)]
pub(crate) mod tests;
