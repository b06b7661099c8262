//! Measures what the agent costs, and writes docs/performance.md and docs/performance-ipvs.md.

use anyhow::Result;

use crate::{build, cargo, paths, scenarios, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel of tests/kernels.toml to boot.
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Only the measurements whose names begin so: hooks, dns, scrape, footprint, walk, or ipvs.
    /// Their figures are shown, and a page is written if all of it is measured, as with ipvs.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// Some twenty minutes on a machine that does nothing else, which it should.
pub(crate) fn run(args: Args) -> Result<()> {
    setup::ensure()?;
    build::agent()?;
    let mut bench = scenarios::program()?;
    bench
        .env("NODEMEDIC_BIN", paths::agent())
        .env("NODEMEDIC_VM", "bench")
        .env("NODEMEDIC_VM_KERNEL", args.kernel)
        .envs(args.only.map(|only| ("NODEMEDIC_BENCH_ONLY", only)))
        .env("NODEMEDIC_BENCH_FOLDER", paths::root().join("docs"));
    cargo::exec(&mut bench)
}
