//! Measures what the agent costs, and writes docs/performance.md.

use anyhow::Result;

use crate::{build, cargo, paths, scenarios, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel of tests/kernels.toml to boot.
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Only the measurements whose names begin so: hooks, dns, scrape, footprint, walk. Their
    /// figures are shown, and no page is written.
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
        .env(
            "NODEMEDIC_BENCH_PAGE",
            paths::root().join("docs/performance.md"),
        );
    cargo::exec(&mut bench)
}
