//! `nodemedic probes`

use std::{panic, thread};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{ConfigFile, exit::Exit};
use crate::{
    ailments::{Host as _, RunningKernel, Ward},
    logging,
    node::Directory,
    render::{Terminal, names_as_text, print, probes_as_text},
    report::{AilmentReport, Coverage, ProbeReport},
};

#[derive(Debug, Args)]
pub(super) struct Probes {
    #[command(flatten)]
    config: ConfigFile,
    /// As JSON.
    #[arg(long, conflicts_with = "facts")]
    json: bool,
    /// Attach nothing; print as JSON what is known of this kernel.
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
        let wards: Vec<_> = cases.map(|case| case.ward).collect();
        if self.facts {
            print(&facts(&wards)?)?;
            return Ok(Exit::Healthy);
        }
        let directory = Directory::start(&config.node)?;
        let reports = attach(wards);
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

fn facts(wards: &[Box<dyn Ward>]) -> anyhow::Result<String> {
    let facts = kernel(wards).facts();
    Ok(serde_json::to_string_pretty(&facts).context("write the facts as JSON")? + "\n")
}

/// Attaches all at once, and detaches them again: the kernel has either wait for all its CPUs.
fn attach(wards: Vec<Box<dyn Ward>>) -> Vec<AilmentReport> {
    let kernel = kernel(&wards);
    let kernel = &kernel;
    thread::scope(|scope| {
        let attach = |mut ward: Box<dyn Ward>| scope.spawn(move || ward.tick(kernel));
        let attaching: Vec<_> = wards.into_iter().map(attach).collect();
        let reports = attaching.into_iter().map(|thread| thread.join());
        reports
            .map(|report| report.unwrap_or_else(|panic| panic::resume_unwind(panic)))
            .collect()
    })
}

fn kernel(wards: &[Box<dyn Ward>]) -> RunningKernel {
    RunningKernel::of(wards.iter().map(AsRef::as_ref))
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
