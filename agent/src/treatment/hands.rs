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

    /// Who may have changed it, as sentences.
    fn suspects(&self, _key: &str) -> Vec<String> {
        Vec::new()
    }
}

/// The kernel's.
#[derive(Clone, Copy, Debug)]
pub struct Sysctls;

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
