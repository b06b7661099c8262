//! The command line: one verb a file.

mod advise;
mod check;
mod config;
mod daemon;
mod dispatch;
pub mod exit;
mod findings;
mod flags;
mod form;
mod metrics;
mod pause;
mod probes;
mod run;
mod signals;
mod status;
mod sweep;
mod treat;
mod treatments;
mod undo;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

#[cfg(any(test, fuzzing))]
pub use check::FUZZ;

use self::{
    exit::Exit,
    flags::{Flag, Flags, TakesKeys},
};
use crate::{
    collector,
    config::{Agent, Config},
    treatment::TreatmentService,
};

/// The treatments of this configuration's ailments, with the runs in the state directory.
fn treatment_service(config: &Config, directory: &Path) -> TreatmentService {
    let collectors = config.ailments.iter().map(|it| &*it.collector);
    let policy = config.treatment_policy.clone();
    TreatmentService::open(
        collector::registry(collectors),
        policy.with(config.treatments.clone()),
        directory,
    )
}

/// Find and remove the stalls that the kernel causes on this node: what is wrong, which
/// workload causes it, which workloads suffer, and what helps.
///
/// Exit codes: 0 healthy, 1 findings, 2 cannot tell, 64 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Observe this node until SIGTERM or SIGINT; serve metrics and reports.
    Run(run::Run),
    /// Observe this node for 10 s and print what is wrong with it.
    Check(check::Check),
    /// Treat an ailment: set sysctls, verify that they help, restore them in time.
    Treat(treat::Treat),
    /// Restore the values that treatments have set.
    Undo(undo::Undo),
    /// Show active and recent treatments.
    Status(status::Status),
    /// Block new treatments until `resume`. Active treatments continue.
    Pause(pause::Pause),
    /// Allow new treatments again.
    Resume(pause::Resume),
    /// Print the settings that make the active treatments permanent.
    Advise(advise::Advise),
    /// Show the conntrack entries of dead connections that make IPVS drop SYNs; mark them
    /// reusable with --apply.
    Sweep(sweep::Sweep),
    /// Receive Alertmanager's webhook and route each alert to its node's agent.
    Dispatch(dispatch::Dispatch),
    /// List all findings: the numbers that lead to each, and what can be mistaken for it.
    Findings(findings::Findings),
    /// List all treatments.
    Treatments(treatments::Treatments),
    /// Show which probes attach on this kernel, by which hook, and what is missing.
    Probes(probes::Probes),
    /// List all metrics.
    Metrics(metrics::Metrics),
    /// Print the default configuration, or check a file.
    Config(config::Config),
}

impl Arguments {
    /// The command line.
    ///
    /// # Errors
    ///
    /// When it names no verb, or a flag that is unknown, has no such value or another name now.
    pub fn read<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut command = flags::refuse_renamed(Self::command());
        let mut matches = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }

    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// When it could not be done.
    pub fn run(self) -> anyhow::Result<Exit> {
        match self.verb {
            Verb::Run(run) => run.run(),
            Verb::Check(check) => check.run(),
            Verb::Treat(treat) => treat.run(),
            Verb::Undo(undo) => undo.run(),
            Verb::Status(status) => status.run(),
            Verb::Pause(pause) => pause.run(),
            Verb::Resume(resume) => resume.run(),
            Verb::Advise(advise) => advise.run(),
            Verb::Sweep(sweep) => sweep.run(),
            Verb::Dispatch(dispatch) => dispatch.run(),
            Verb::Findings(findings) => findings.run(),
            Verb::Treatments(treatments) => treatments.run(),
            Verb::Probes(probes) => probes.run(),
            Verb::Metrics(metrics) => metrics.run(),
            Verb::Config(config) => config.run(),
        }
    }
}

/// The configuration file, of all verbs that need one.
#[derive(Debug, Args)]
struct ConfigFile {
    /// Read the configuration from this file [default: built-in defaults].
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config, crate::config::Error> {
        crate::config::load(self.file.as_deref())
    }
}

/// What the verbs about treatments need to find the agent of the node, or its state.
#[derive(Debug, Args)]
struct Node {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    flags: Flags<Self>,
}

impl TakesKeys for Node {
    fn flags() -> Vec<Flag> {
        Flag::one::<Agent>("state_dir")
    }
}

impl Node {
    /// The configuration, with the directory in it.
    fn load(&self) -> Result<Config, crate::config::Error> {
        let mut config = self.config.load()?;
        self.flags.set(&mut config)?;
        Ok(config)
    }
}
