//! `nodemedic status`

use clap::Args;

use super::{Node, exit::Exit};
use crate::{
    ailments,
    control::{Answer, Request, call},
    kernel::sysctl,
    model::{Run, RunState},
    render::{Terminal, print, runs_as_text},
    state,
    treatment::{Journal, Refusal, is_paused},
};

/// Works without a running agent: it reads the journal then.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    node: Node,
    /// Print the treatments as JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let Known { runs, notes } = known(&self.node)?;
        print(&if self.json {
            serde_json::to_string_pretty(&runs)? + "\n"
        } else {
            let notes = notes.into_iter().map(|note| format!("note: {note}\n"));
            runs_as_text(&runs, &ailments::treatments(), Terminal::of_stdout())
                + &notes.collect::<String>()
        })?;
        Ok(Exit::Healthy)
    }
}

/// What is known of treatments.
pub(super) struct Known {
    pub(super) runs: Vec<Run>,
    /// What a user should know beside.
    notes: Vec<String>,
}

/// From the agent of the node, or from its journal where none runs.
pub(super) fn known(node: &Node) -> anyhow::Result<Known> {
    let directory = state::directory(&node.load()?.agent.state_dir);
    match call(&directory, &Request::Status)? {
        Some(Answer::Status { runs, trouble }) => Ok(Known {
            runs,
            notes: trouble.into_iter().collect(),
        }),
        Some(Answer::Refused { why, .. }) => anyhow::bail!("{why}"),
        Some(other) => anyhow::bail!("the agent answers something else: {other:?}"),
        None => {
            let mut runs = Journal::read(&directory)?;
            void(&mut runs);
            let mut notes = vec!["no agent runs on this node with this state directory".to_owned()];
            if runs.iter().any(Run::is_active) {
                notes.push(
                    "no agent supervises the active treatments; `nodemedic undo` restores \
                     the values"
                        .into(),
                );
            }
            if is_paused(&directory) {
                notes.push(Refusal::Paused.to_string());
            }
            Ok(Known { runs, notes })
        }
    }
}

/// What a reboot has ended.
fn void(runs: &mut [Run]) {
    let Ok(Some(boot)) = sysctl::read("kernel.random.boot_id") else {
        return;
    };
    for run in runs {
        if run.is_active() && run.boot != boot {
            run.state = RunState::Rebooted;
        }
    }
}
