//! The exit codes, an interface like any other.

use std::process::ExitCode;

use crate::{config, http::Misconfigured, model::Verdict, render::complain};

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Healthy,
    /// Something was found.
    Findings,
    /// It could not be told.
    Unknown,
    /// The command line or the configuration is wrong.
    Usage,
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy => Self::Healthy,
            Verdict::Warning | Verdict::Critical => Self::Findings,
            Verdict::Unknown => Self::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Healthy => Self::from(0),
            Exit::Findings => Self::from(1),
            Exit::Unknown => Self::from(2),
            Exit::Usage => Self::from(64),
        }
    }
}

/// The code of a subcommand that has ended; prints an error to standard error.
pub fn code(outcome: anyhow::Result<Exit>) -> ExitCode {
    let exit = outcome.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        if error.is::<config::Error>() || error.is::<Misconfigured>() {
            Exit::Usage
        } else {
            Exit::Unknown
        }
    });
    exit.into()
}

/// The code of a command line that names no verb; says what is wrong, or shows the
/// help or version that was asked for.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Whoever has closed the stream does not want the text.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Healthy.into()
    }
}
