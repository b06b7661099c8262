//! Runs the tests, against the agent as it is shipped.

use anyhow::Result;

use crate::{build, cargo, paths, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the virtual machines.
    #[arg(long)]
    quick: bool,
    /// Run only the tests with this in their name.
    filter: Option<String>,
}

/// The agent is the released one; the tests are built as cargo does by default, for overflow
/// checks in the code that they test, and for quick rebuilds.
pub(crate) fn run(args: Args) -> Result<()> {
    setup::ensure_for_tests()?;
    build::agent()?;
    let mut test = cargo::cargo_static("test");
    test.args(["--workspace", "--no-fail-fast"]);
    test.env("NODEMEDIC_BIN", paths::agent());
    if args.quick {
        test.env("NODEMEDIC_VM", "off");
    }
    // Nothing is printed after this: the runner has the last word.
    cargo::exec(test.arg("--").args(args.filter))
}
