//! `nodemedic treatments`

use clap::Args;
use serde::Serialize;

use super::{exit::Exit, form::Form};
use crate::{
    ailments,
    model::Treatment,
    render::{treatments_as_markdown, treatments_as_text},
};

#[derive(Debug, Args)]
pub(super) struct Treatments {
    #[command(flatten)]
    form: Form,
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
        let entries: Vec<_> = treatments.iter().map(entry).collect();
        self.form.print(
            &entries,
            || treatments_as_markdown(&treatments),
            || treatments_as_text(&treatments),
        )
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
