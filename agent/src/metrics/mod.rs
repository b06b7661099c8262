//! Metrics: their definitions, and how a report becomes a page.

mod agent;
mod cap;
pub mod connections;
mod page;
mod process;
mod treatment;

pub use cap::cap;
pub use page::Page;

use crate::{
    model::{About, Section},
    node,
};

/// The metrics that tell of reports, while these ailments are observed.
pub fn of_reports(ailments: &[About]) -> Vec<Section> {
    let mut sections = vec![
        Section {
            name: "agent",
            about: "how well the agent itself observes, ailment by ailment",
            metrics: agent::METRICS,
        },
        Section {
            name: "names",
            about: "how well the names of pods and containers are known",
            metrics: node::METRICS,
        },
        Section {
            name: "treatment",
            about: "what the agent changes on its node",
            metrics: treatment::METRICS,
        },
        Section {
            name: "process",
            about: "what the agent's process takes",
            metrics: process::METRICS,
        },
    ];
    sections.extend(ailments.iter().map(|about| Section {
        name: about.name,
        about: about.summary,
        metrics: about.metrics,
    }));
    sections
}
