//! `nodemedic advise`

use clap::Args;

use super::{Node, exit::Exit, status::known};
use crate::{
    ailments, collector,
    kernel::netns,
    model::{Registry, Run, Treatment},
    render::{fill, print},
};

const WIDTH: usize = 78;

/// Print lines for a file in /etc/sysctl.d.
#[derive(Debug, Args)]
pub(super) struct Advise {
    #[command(flatten)]
    node: Node,
}

impl Advise {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let runs = known(&self.node)?.runs;
        let active: Vec<_> = runs.iter().filter(|it| it.is_active()).collect();
        if active.is_empty() {
            print("# No treatment is active: nothing to make permanent.\n")?;
            return Ok(Exit::Healthy);
        }
        let own = netns::own()?;
        print(
            &active
                .into_iter()
                .map(|it| lines(it, own))
                .collect::<String>(),
        )?;
        Ok(Exit::Healthy)
    }
}

fn lines(run: &Run, own: u32) -> String {
    let Registry {
        treatments,
        switches,
    } = collector::registry(ailments::all().iter().map(AsRef::as_ref));
    let known = treatments.into_iter();
    let mut treatment = known.filter(|(_, it)| it.name == run.treatment);
    let durable = treatment
        .next()
        .map_or("", |(_, treatment): (_, &Treatment)| treatment.durable);
    let mut text = format!("# {}, treatment {}\n", run.treatment, run.id);
    text.push_str(&fill(durable, WIDTH, "# ", "# "));
    for change in &run.changes {
        if switches.iter().any(|switch| switch.key() == change.key) {
            // The agent's own, of which no other program knows.
            continue;
        }
        if change.netns == own {
            text.push_str(&format!("{} = {}\n", change.key, change.to));
        } else {
            text.push_str(&format!(
                "# in network namespace {}, to be set by its owner: {} = {}\n",
                change.netns, change.key, change.to
            ));
        }
    }
    text
}
