//! Measures what the agent costs, and writes docs/performance.md, docs/performance-ipvs.md and
//! docs/performance-psi.md.

use anyhow::Result;

use crate::{build, cargo, paths, scenarios};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel of tests/kernels.toml to boot.
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Only the measurements whose names begin so: hooks, dns, scrape, footprint, walk, ipvs, or psi.
    /// Their figures are shown, and a page is written if all of it is measured, as with ipvs and psi.
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
        .env("NODEMEDIC_BENCH_FOLDER", paths::root().join("docs"));
    cargo::exec(&mut bench)
}
