//! Metrics: their definitions, and how a report becomes a page.

mod agent;
mod cap;
mod collector;
mod definition;
mod process;
#[cfg(test)]
mod rules;
mod treatment;

pub use cap::cap;
pub use collector::Page;
pub use definition::{Kind, MetricDef, Sample, Value};

use crate::{ailments::About, dispatch, node, webhook};

/// Metrics that belong together.
#[derive(Clone, Debug)]
pub struct Section {
    /// The ailment's name, or what part of the agent they are of.
    pub name: &'static str,
    /// What they tell: a sentence without its capital and its full stop.
    pub about: &'static str,
    /// Their definitions.
    pub metrics: &'static [MetricDef],
}

/// Every metric that there is while these ailments are observed.
pub fn sections(ailments: &[About]) -> Vec<Section> {
    let mut sections = of_reports(ailments);
    sections.push(Section {
        name: "webhook",
        about: "what alerts ask for, while webhook.enabled is on",
        metrics: webhook::METRICS,
    });
    sections.push(Section {
        name: "dispatch",
        about: "what `nodemedic dispatch` does with alerts, on its own /metrics",
        metrics: dispatch::METRICS,
    });
    sections
}

/// Those that tell of reports.
fn of_reports(ailments: &[About]) -> Vec<Section> {
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
