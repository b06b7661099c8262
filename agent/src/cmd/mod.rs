//! The command line: one verb a file.

mod check;
mod config;
pub mod exit;
mod metrics;
mod probes;
mod run;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::exit::Exit;

/// Finds the ways in which the kernel stalls a node: what is wrong, who causes it,
/// who suffers, and what helps.
///
/// Exit codes: 0 all is well, 1 something was found, 2 could not tell, 64 wrong
/// usage or configuration.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Observe this node until told to stop, and serve metrics and reports.
    Run(run::Run),
    /// Observe this node for a while, and tell what is wrong with it.
    Check(check::Check),
    /// Show what can be probed on this kernel, how, and what is missing.
    Probes(probes::Probes),
    /// List the metrics.
    Metrics(metrics::Metrics),
    /// Show the defaults of the configuration, or check a file.
    Config(config::Config),
}

impl Arguments {
    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// When it could not be done.
    pub fn run(self) -> anyhow::Result<Exit> {
        match self.verb {
            Verb::Run(run) => run.run(),
            Verb::Check(check) => check.run(),
            Verb::Probes(probes) => probes.run(),
            Verb::Metrics(metrics) => metrics.run(),
            Verb::Config(config) => config.run(),
        }
    }
}

/// The configuration file, of all verbs that need one.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Configuration file; without one the defaults hold.
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<crate::config::Config, crate::config::Error> {
        crate::config::load(self.file.as_deref())
    }
}
