//! `nodemedic findings`

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use crate::{
    ailments,
    model::FindingKind,
    render::{findings_as_markdown, findings_as_text, print},
};

#[derive(Debug, Args)]
pub(super) struct Findings {
    /// Print JSON.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the page of the documentation.
    #[arg(long)]
    markdown: bool,
}

/// A kind of finding as JSON.
#[derive(Serialize)]
struct Entry {
    ailment: &'static str,
    kind: &'static str,
    severity: &'static str,
    numbers: &'static str,
    not: &'static str,
}

impl Findings {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let findings = ailments::findings();
        let text = if self.json {
            let entries: Vec<_> = findings.iter().map(entry).collect();
            serde_json::to_string_pretty(&entries)? + "\n"
        } else if self.markdown {
            findings_as_markdown(&findings)
        } else {
            findings_as_text(&findings)
        };
        print(&text)?;
        Ok(Exit::Healthy)
    }
}

fn entry((ailment, finding): &(&'static str, &'static FindingKind)) -> Entry {
    let FindingKind {
        kind,
        severity,
        numbers,
        not,
    } = finding;
    Entry {
        ailment,
        kind,
        severity,
        numbers,
        not,
    }
}
