//! Files that must outlive the agent, a full disk and a power failure, in a directory that only
//! its owner can have written to.
//!
//! - [`Directory`] refuses a directory or file of another user, one that others may write to, and
//!   links. It opens files relative to its own descriptor, so nobody can exchange the directory.
//! - [`Log`] appends records. A record that could not be written, or not be synced, is cut off
//!   again before the next one.
//! - A log holds *room* for records to come, so that what ends a treatment needs no more disk.

mod directory;
#[cfg(test)]
pub(crate) mod fake;
mod log;

pub use directory::Directory;
pub use log::{Log, Storage};
