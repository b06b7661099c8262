//! The chores of the project, one verb a file: `cargo xtask --help`.

mod apt;
mod bench;
mod build;
mod build_dir;
mod cargo;
mod docs;
mod fuzz;
mod lab;
mod lint;
mod paths;
mod performance;
mod prose;
mod record;
mod run;
mod scenarios;
mod setup;
mod soak;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, runs and tests nodemedic.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the build needs and this machine lacks.
    Setup(setup::Args),
    /// Build the agent, statically linked, with the BPF objects inside.
    Build(build::Args),
    /// Set up, build, and start `nodemedic run` on this host.
    Run(run::Args),
    /// Set up, build, and run every test.
    Test(test::Args),
    /// Look at the agent in a virtual machine that has an ailment.
    Lab(lab::Args),
    /// Run scenarios on the kernels of the matrix, or look around in one.
    Vm(vm::Args),
    /// Check format, prose, lints, dependencies and generated pages.
    Lint(lint::Args),
    /// Measure what the agent costs, and write the pages about it.
    Bench(bench::Args),
    /// Have faults come and go on a node for hours, and see that the agent takes no more than before.
    Soak(soak::Args),
    /// Look for bytes that make a parser of the agent panic or hang.
    Fuzz(fuzz::Args),
    /// Write down what each kernel of the matrix is, for unit tests.
    Record(record::Args),
    /// Write the pages that are generated from the agent and from the benchmarks' figures.
    Docs(docs::Args),
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup(args) => setup::run(args),
        Verb::Build(args) => build::run(args),
        Verb::Run(args) => run::run(args),
        Verb::Test(args) => test::run(args),
        Verb::Lab(args) => lab::run(args),
        Verb::Vm(args) => vm::run(args),
        Verb::Lint(args) => lint::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Soak(args) => soak::run(args),
        Verb::Fuzz(args) => fuzz::run(args),
        Verb::Record(args) => record::run(args),
        Verb::Docs(args) => docs::run(args),
    }
}
