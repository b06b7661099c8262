//! `nodemedic treatments`

use clap::Args;
use serde::Serialize;

use super::exit::Exit;
use crate::{
    ailments,
    model::Treatment,
    render::{print, treatments_as_markdown, treatments_as_text},
};

#[derive(Debug, Args)]
pub(super) struct Treatments {
    /// Print JSON.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the page of the documentation.
    #[arg(long)]
    markdown: bool,
}

/// A treatment as JSON.
#[derive(Serialize)]
struct Entry {
    name: &'static str,
    ailment: &'static str,
    effect: &'static str,
    cost: &'static str,
    acts: &'static str,
    applies: &'static str,
    durable: &'static str,
    keys: Vec<&'static str>,
}

impl Treatments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let treatments = ailments::treatments();
        let text = if self.json {
            let entries: Vec<_> = treatments.iter().map(entry).collect();
            serde_json::to_string_pretty(&entries)? + "\n"
        } else if self.markdown {
            treatments_as_markdown(&treatments)
        } else {
            treatments_as_text(&treatments)
        };
        print(&text)?;
        Ok(Exit::Healthy)
    }
}

fn entry((ailment, treatment): &(&'static str, &'static Treatment)) -> Entry {
    Entry {
        name: treatment.name,
        ailment,
        effect: treatment.effect,
        cost: treatment.cost,
        acts: treatment.acts,
        applies: treatment.applies,
        durable: treatment.durable,
        keys: treatment.keys.iter().map(|bound| bound.key).collect(),
    }
}
