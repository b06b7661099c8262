//! `nodemedic probes`

use std::{panic, thread};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{ConfigFile, exit::Exit};
use crate::{
    collector::{Collector, Host as _, RunningKernel},
    logging,
    model::{AilmentReport, Coverage, ProbeReport},
    node::Directory,
    render::{Terminal, names_as_text, print, probes_as_text},
};

#[derive(Debug, Args)]
pub(super) struct Probes {
    #[command(flatten)]
    config: ConfigFile,
    /// Print JSON.
    #[arg(long, conflicts_with = "facts")]
    json: bool,
    /// Attach nothing; print the facts about this kernel as JSON.
    #[arg(long)]
    facts: bool,
}

/// An ailment in the JSON form.
#[derive(Serialize)]
struct Entry<'a> {
    ailment: &'a str,
    coverage: &'a Coverage,
    probes: &'a [ProbeReport],
}

impl Probes {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        logging::for_a_person();
        let config = self.config.load()?;
        let cases = config.ailments.into_iter();
        let collectors: Vec<_> = cases.map(|case| case.collector).collect();
        if self.facts {
            print(&facts(&collectors)?)?;
            return Ok(Exit::Healthy);
        }
        let directory = Directory::start(&config.node)?;
        let reports = attach(collectors);
        directory.settle(config.node.timeout);
        print(&if self.json {
            json(&reports)?
        } else {
            let terminal = Terminal::of_stdout();
            let names = directory.report();
            probes_as_text(&reports, terminal) + &names_as_text(names.as_ref(), terminal)
        })?;
        Ok(Exit::Healthy)
    }
}

fn facts(collectors: &[Box<dyn Collector>]) -> anyhow::Result<String> {
    let facts = kernel(collectors).facts();
    Ok(serde_json::to_string_pretty(&facts).context("write the facts as JSON")? + "\n")
}

/// Attaches all at once, and detaches them again: the kernel has either wait for all its CPUs.
fn attach(collectors: Vec<Box<dyn Collector>>) -> Vec<AilmentReport> {
    let kernel = kernel(&collectors);
    let kernel = &kernel;
    thread::scope(|scope| {
        let attach =
            |mut collector: Box<dyn Collector>| scope.spawn(move || collector.tick(kernel));
        let attaching: Vec<_> = collectors.into_iter().map(attach).collect();
        let reports = attaching.into_iter().map(|thread| thread.join());
        reports
            .map(|report| report.unwrap_or_else(|panic| panic::resume_unwind(panic)))
            .collect()
    })
}

fn kernel(collectors: &[Box<dyn Collector>]) -> RunningKernel {
    RunningKernel::of(collectors.iter().map(AsRef::as_ref))
}

fn json(reports: &[AilmentReport]) -> anyhow::Result<String> {
    let entries = reports.iter().map(|report| Entry {
        ailment: &report.name,
        coverage: &report.coverage,
        probes: &report.probes,
    });
    let entries: Vec<_> = entries.collect();
    Ok(serde_json::to_string_pretty(&entries).context("write the probes as JSON")? + "\n")
}
