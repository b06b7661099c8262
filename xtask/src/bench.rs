//! Measures what the agent costs, and writes the figures and the pages about them.

use anyhow::Result;

use crate::{build, cargo, docs, paths, performance, scenarios};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel of tests/kernels.toml to boot.
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Measure only what has a name with this beginning: hooks, dns, scrape, host, footprint, scan,
    /// ipvs, or psi. The other figures stay as they are.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// Some twenty minutes on a machine that does nothing else, which it should.
pub(crate) fn run(args: Args) -> Result<()> {
    build::agent()?;
    let mut bench = scenarios::program()?;
    bench
        .env("NODEMEDIC_BIN", paths::agent())
        .env("NODEMEDIC_VM", "bench")
        .env("NODEMEDIC_VM_KERNEL", args.kernel)
        .envs(args.only.map(|only| ("NODEMEDIC_BENCH_ONLY", only)))
        .env("NODEMEDIC_BENCH_FILE", performance::figures());
    cargo::run(&mut bench)?;
    docs::write_performance()
}
