//! What writes.

use std::{fmt, io};

use super::suspects::suspects;
use crate::kernel::{netns, sysctl};

/// A sysctl in a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<'a> {
    /// Dots between its parts.
    pub key: &'a str,
    /// Inode number of the namespace.
    pub netns: u32,
}

/// Something that the agent does while it is on, one for each network namespace. Its key
/// is set and put back as a sysctl is.
#[derive(Debug)]
pub struct Switch {
    /// Unlike that of any sysctl.
    pub key: &'static str,
    /// As [`Hands::read`], of the namespace with this inode number.
    pub read: fn(u32) -> io::Result<Option<u64>>,
    /// As [`Hands::write`].
    pub write: fn(u32, u64) -> io::Result<()>,
}

/// Reads and writes sysctls.
pub trait Hands: fmt::Debug + Send {
    /// The value; `None` where there is no such key, or no such namespace any more.
    ///
    /// # Errors
    ///
    /// The operation, the key and the kernel's error.
    fn read(&self, place: Place<'_>) -> io::Result<Option<u64>>;

    /// Writes a value.
    ///
    /// # Errors
    ///
    /// The operation, the key and the kernel's error.
    fn write(&self, place: Place<'_>, value: u64) -> io::Result<()>;

    /// Whether it is as it was before as soon as the agent ends.
    fn ends_with_agent(&self, _key: &str) -> bool {
        false
    }

    /// Who may have changed it, as sentences.
    fn suspects(&self, _key: &str) -> Vec<String> {
        Vec::new()
    }
}

/// The kernel's, and the agent's own.
#[derive(Debug)]
pub struct SysctlsAnd(pub Vec<&'static Switch>);

impl SysctlsAnd {
    fn switch(&self, key: &str) -> Option<&'static Switch> {
        self.0.iter().copied().find(|switch| switch.key == key)
    }
}

impl Hands for SysctlsAnd {
    fn read(&self, place: Place<'_>) -> io::Result<Option<u64>> {
        match self.switch(place.key) {
            Some(switch) => (switch.read)(place.netns),
            None => Sysctls.read(place),
        }
    }

    fn write(&self, place: Place<'_>, value: u64) -> io::Result<()> {
        match self.switch(place.key) {
            Some(switch) => (switch.write)(place.netns, value),
            None => Sysctls.write(place, value),
        }
    }

    fn ends_with_agent(&self, key: &str) -> bool {
        self.switch(key).is_some()
    }

    fn suspects(&self, key: &str) -> Vec<String> {
        match self.switch(key) {
            Some(_) => Vec::new(),
            None => Sysctls.suspects(key),
        }
    }
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
struct Sysctls;

impl Hands for Sysctls {
    fn read(&self, Place { key, netns }: Place<'_>) -> io::Result<Option<u64>> {
        netns::inside(netns, || sysctl::read_number(key))?.unwrap_or(Ok(None))
    }

    fn write(&self, Place { key, netns }: Place<'_>, value: u64) -> io::Result<()> {
        netns::inside(netns, || sysctl::write(key, value))?.unwrap_or_else(|| {
            let gone = format!("write {key}: no process is in network namespace {netns} any more");
            Err(io::Error::new(io::ErrorKind::NotFound, gone))
        })
    }

    fn suspects(&self, key: &str) -> Vec<String> {
        suspects(key)
    }
}
