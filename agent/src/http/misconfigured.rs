//! A configuration that is read, and cannot be used.

use std::fmt;

/// What the configuration names cannot be used: a file, or an address without authentication. The
/// process ends with the code of a wrong configuration.
#[derive(Debug)]
pub struct Misconfigured(anyhow::Error);

impl Misconfigured {
    /// For this reason.
    pub fn because(why: anyhow::Error) -> Self {
        Self(why)
    }
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

/// All of the reason is in the text.
impl std::error::Error for Misconfigured {}
