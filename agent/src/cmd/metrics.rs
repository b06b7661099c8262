//! `nodemedic metrics`

use clap::Args;

use super::{exit::Exit, form::Form};
use crate::{
    ailments, dispatch, metrics,
    model::{About, MetricDef, Section},
    render::{metrics_as_markdown, metrics_as_text},
    webhook,
};

#[cfg(test)]
mod rules;

#[derive(Debug, Args)]
pub(super) struct Metrics {
    /// List every metric that a scrape can return.
    #[arg(long, required = true)]
    list: bool,
    #[command(flatten)]
    form: Form,
}

impl Metrics {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let ailments: Vec<_> = ailments::all()
            .iter()
            .map(|collector| collector.about())
            .collect();
        let sections = sections(&ailments);
        let all: Vec<&MetricDef> = sections.iter().flat_map(|it| it.metrics).collect();
        self.form.print(
            &all,
            || metrics_as_markdown(&sections),
            || metrics_as_text(&sections),
        )
    }
}

/// Every metric that there is while these ailments are observed.
fn sections(ailments: &[About]) -> Vec<Section> {
    let mut sections = metrics::of_reports(ailments);
    sections.push(Section {
        name: "http",
        about: "what the listeners of the agent and of `nodemedic dispatch` refuse",
        metrics: metrics::connections::METRICS,
    });
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
