//! `nodemedic metrics`

use clap::Args;

use super::exit::Exit;
use crate::{
    ailments,
    metrics::{MetricDef, sections},
    render::{metrics_as_markdown, metrics_as_text, print},
};

#[derive(Debug, Args)]
pub(super) struct Metrics {
    /// List every metric that a scrape can show.
    #[arg(long, required = true)]
    list: bool,
    /// As JSON.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As tables in Markdown.
    #[arg(long)]
    markdown: bool,
}

impl Metrics {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let ailments: Vec<_> = ailments::all().iter().map(|ward| ward.about()).collect();
        let sections = sections(&ailments);
        let text = if self.json {
            let all: Vec<&MetricDef> = sections.iter().flat_map(|it| it.metrics).collect();
            serde_json::to_string_pretty(&all)? + "\n"
        } else if self.markdown {
            metrics_as_markdown(&sections)
        } else {
            metrics_as_text(&sections)
        };
        print(&text)?;
        Ok(Exit::Healthy)
    }
}
