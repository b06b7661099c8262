//! `nodemedic findings`

use clap::Args;
use serde::Serialize;

use super::{exit::Exit, form::Form};
use crate::{
    ailments,
    model::FindingKind,
    render::{findings_as_markdown, findings_as_text},
};

#[derive(Debug, Args)]
pub(super) struct Findings {
    #[command(flatten)]
    form: Form,
}

/// A kind of finding as JSON.
#[derive(Serialize)]
struct Entry {
    ailment: &'static str,
    #[serde(flatten)]
    finding: &'static FindingKind,
}

impl Findings {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let findings = ailments::findings();
        let entries: Vec<_> = findings
            .iter()
            .map(|&(ailment, finding)| Entry { ailment, finding })
            .collect();
        self.form.print(
            &entries,
            || findings_as_markdown(&findings),
            || findings_as_text(&findings),
        )
    }
}
