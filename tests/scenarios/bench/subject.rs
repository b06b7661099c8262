//! What is attached while something is measured.

use anyhow::Result;
use nodemedic_tests::guest::Guest;

use super::agent::Agent;
use super::bpftrace;
use crate::agent::SOON;

#[derive(Clone, Copy)]
pub(super) enum Subject {
    Nothing,
    /// The agent, with this configuration.
    Ours(&'static str),
    /// A script of bpftrace, with so many hooks.
    Bpftrace(&'static str, usize),
}

impl Subject {
    /// Does something while it is attached.
    pub(super) fn with<T>(self, guest: &Guest, f: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Self::Nothing => f(),
            Self::Ours(config) => {
                let agent = Agent::start(guest, config)?;
                let result = f();
                agent.stop()?;
                result
            }
            Self::Bpftrace(script, hooks) => {
                let mut bpftrace = bpftrace::start(guest, script, hooks)?;
                let result = f();
                bpftrace.stop(SOON)?;
                result
            }
        }
    }
}
