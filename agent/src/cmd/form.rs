//! The forms in which a verb lists what there is.

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use crate::render::print;

/// As text, unless one of these is given.
#[derive(Debug, Args)]
pub(super) struct Form {
    /// Print JSON.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print Markdown, as the page of the documentation.
    #[arg(long)]
    markdown: bool,
}

impl Form {
    /// Prints a list in the form that is wanted.
    pub(super) fn print<E: Serialize>(
        &self,
        entries: &[E],
        markdown: impl FnOnce() -> String,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<Exit> {
        let text = if self.json {
            serde_json::to_string_pretty(entries)? + "\n"
        } else if self.markdown {
            markdown()
        } else {
            text()
        };
        print(&text)?;
        Ok(Exit::Healthy)
    }
}
