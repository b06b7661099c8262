//! Starts the agent on this host, from nothing.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::{build, cargo, paths};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What `nodemedic run` is given.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    build::agent()?;
    cargo::exec(Command::new(paths::agent()).arg("run").args(args.arguments))
}
