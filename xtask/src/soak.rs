//! Hours of guest time on a node on which faults come and go.

use anyhow::Result;

use crate::{build, cargo, paths, scenarios};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long, in hours of the guest: its idle time is skipped.
    #[arg(long, default_value = "24", value_name = "N")]
    hours: f64,
    /// The kernel of tests/kernels.toml to boot.
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Of the guest's random numbers, and of the order in which things happen. The same seed makes the
    /// same soak.
    #[arg(long, default_value = "1", value_name = "N")]
    seed: std::num::NonZeroU32,
}

/// Becomes the test binary, which then is the process that a signal has to reach.
pub(crate) fn run(args: Args) -> Result<()> {
    build::agent()?;
    let mut soak = scenarios::program()?;
    soak.env("NODEMEDIC_BIN", paths::agent())
        .env("NODEMEDIC_VM", "soak")
        .env("NODEMEDIC_VM_KERNEL", args.kernel)
        .env("NODEMEDIC_VM_SEED", args.seed.to_string())
        .env("NODEMEDIC_SOAK_HOURS", args.hours.to_string());
    cargo::exec(&mut soak)
}
