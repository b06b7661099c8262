//! Boots a stock kernel with a DNS storm and the agent in it, for a person to look at.

use std::num::NonZeroU16;

use anyhow::Result;

use crate::{build, cargo, paths, scenarios, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel of tests/kernels.toml to boot.
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// The port of the loopback on which the agent's pages are. Not the agent's own by default:
    /// one may be running on this host.
    #[arg(long, default_value = "19120")]
    port: NonZeroU16,
    /// DNS queries a second, of all pods together.
    #[arg(long, value_name = "N", default_value = "200", value_parser = clap::value_parser!(u32).range(3..=5_000))]
    qps: u32,
}

/// Becomes the test binary, which then is the process that a signal has to reach.
pub(crate) fn run(args: Args) -> Result<()> {
    setup::ensure()?;
    build::agent()?;
    let mut lab = scenarios::program()?;
    lab.env("NODEMEDIC_BIN", paths::agent())
        .env("NODEMEDIC_VM", "lab")
        .env("NODEMEDIC_VM_KERNEL", args.kernel)
        .env("NODEMEDIC_LAB_PORT", args.port.to_string())
        .env("NODEMEDIC_LAB_QPS", args.qps.to_string());
    cargo::exec(&mut lab)
}
