//! Treatments: sysctls that are set for a limited time, watched, and restored.
//!
//! A run of a treatment goes through these states. The [`journal`] has each before the next
//! begins, so an agent that was killed at any point knows at its next start what to restore:
//!
//! ```text
//! guard ──> intended ──write, read back──> applied ──watch──> confirmed ──> undone
//!             └─────────> failed              └──────────────────────────────^
//! ```
//!
//! Two more ends: `overridden`, when another writer has changed a value since (the run reports it
//! and leaves that value), and `rebooted`, when the machine has booted since. This folder alone
//! asks [`crate::kernel::sysctl`] to write.

mod engine;
mod foreign;
mod guard;
mod journal;
mod likely_writers;
mod policy;
mod service;
mod writer;

pub use engine::{Ask, AskOutcome, Engine, Intent, Now};
pub use guard::Refusal;
#[cfg(any(test, fuzzing))]
pub use journal::FUZZ;
pub use journal::Journal;
pub use policy::{AtExit, Mode, Modes, Policy};
pub use service::{NotNow, Once, Resolved, Runs, TreatmentService, is_paused, pause};
pub use writer::{SysctlTarget, SysctlWriter, SysctlsAndSwitches};

#[cfg(test)]
pub(crate) mod tests;
