//! Writes tests/recorded: what the agent finds out about each kernel of the matrix.

use anyhow::Result;

use crate::{build, cargo, paths, scenarios};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this kernel of tests/kernels.toml.
    #[arg(long)]
    kernel: Option<String>,
}

/// To be run when an ailment needs to know more of a kernel, or a pin has moved.
pub(crate) fn run(args: Args) -> Result<()> {
    build::agent()?;
    let mut record = scenarios::program()?;
    record
        .env("NODEMEDIC_BIN", paths::agent())
        .env("NODEMEDIC_VM", "record")
        .envs(args.kernel.map(|kernel| ("NODEMEDIC_VM_KERNEL", kernel)))
        .env(
            "NODEMEDIC_RECORD_FOLDER",
            paths::root().join("tests/recorded"),
        );
    cargo::exec(&mut record)
}
