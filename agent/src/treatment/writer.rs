//! What writes.

use std::{fmt, io, sync::Arc};

use super::likely_writers::likely_writers;
use crate::{
    kernel::{netns, sysctl},
    model::Switch,
};

/// A sysctl in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysctlTarget<'a> {
    /// Dots between its parts.
    pub key: &'a str,
    /// Inode number of the namespace.
    pub netns: u32,
}

/// Reads and writes sysctls.
pub trait SysctlWriter: fmt::Debug + Send {
    /// The value; `None` where there is no such key, or no such namespace any more.
    ///
    /// # Errors
    ///
    /// The operation, the key and the kernel's error.
    fn read(&self, target: SysctlTarget<'_>) -> io::Result<Option<u64>>;

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// The operation, the key and the kernel's error.
    fn write(&self, target: SysctlTarget<'_>, value: u64) -> io::Result<()>;

    /// Whether it is as it was before as soon as the agent ends.
    fn ends_with_agent(&self, _key: &str) -> bool {
        false
    }

    /// Who may have changed it, as sentences.
    fn likely_writers(&self, _key: &str) -> Vec<String> {
        Vec::new()
    }
}

/// The kernel's, and the agent's own.
#[derive(Debug)]
pub struct SysctlsAndSwitches(pub Vec<Arc<dyn Switch>>);

impl SysctlsAndSwitches {
    fn switch(&self, key: &str) -> Option<&dyn Switch> {
        let mut switches = self.0.iter();
        Some(&**switches.find(|switch| switch.key() == key)?)
    }
}

impl SysctlWriter for SysctlsAndSwitches {
    fn read(&self, target: SysctlTarget<'_>) -> io::Result<Option<u64>> {
        match self.switch(target.key) {
            Some(switch) => switch.read(target.netns),
            None => Sysctls.read(target),
        }
    }

    fn write(&self, target: SysctlTarget<'_>, value: u64) -> io::Result<()> {
        match self.switch(target.key) {
            Some(switch) => switch.write(target.netns, value),
            None => Sysctls.write(target, value),
        }
    }

    fn ends_with_agent(&self, key: &str) -> bool {
        self.switch(key).is_some()
    }

    fn likely_writers(&self, key: &str) -> Vec<String> {
        match self.switch(key) {
            Some(_) => Vec::new(),
            None => Sysctls.likely_writers(key),
        }
    }
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
struct Sysctls;

impl SysctlWriter for Sysctls {
    fn read(&self, SysctlTarget { key, netns }: SysctlTarget<'_>) -> io::Result<Option<u64>> {
        netns::inside(netns, || sysctl::read_number(key))?.unwrap_or(Ok(None))
    }

    fn write(&self, SysctlTarget { key, netns }: SysctlTarget<'_>, value: u64) -> io::Result<()> {
        netns::inside(netns, || sysctl::write(key, value))?.unwrap_or_else(|| {
            let gone = format!("write {key}: no process is in network namespace {netns} any more");
            Err(io::Error::new(io::ErrorKind::NotFound, gone))
        })
    }

    fn likely_writers(&self, key: &str) -> Vec<String> {
        likely_writers(key)
    }
}
