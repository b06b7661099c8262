//! `nodemedic status`

use clap::Args;

use super::{Node, exit::Exit};
use crate::{
    control::{Answer, Request, call},
    kernel::sysctl,
    render::{Terminal, courses_as_text, print},
    state,
    treatment::{Course, Journal, Refusal, State, is_paused},
};

/// Works without an agent too: the journal tells.
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
        let Known { courses, notes } = known(&self.node)?;
        print(&if self.json {
            serde_json::to_string_pretty(&courses)? + "\n"
        } else {
            let notes = notes.into_iter().map(|note| format!("note: {note}\n"));
            courses_as_text(&courses, Terminal::of_stdout()) + &notes.collect::<String>()
        })?;
        Ok(Exit::Healthy)
    }
}

/// What is known of treatments.
pub(super) struct Known {
    pub(super) courses: Vec<Course>,
    /// What a user should know beside.
    notes: Vec<String>,
}

/// From the agent of the node, or from its journal where none runs.
pub(super) fn known(node: &Node) -> anyhow::Result<Known> {
    let directory = state::directory(&node.load()?.agent.state_dir);
    match call(&directory, &Request::Status)? {
        Some(Answer::Status { courses, trouble }) => Ok(Known {
            courses,
            notes: trouble.into_iter().collect(),
        }),
        Some(Answer::Refused { why, .. }) => anyhow::bail!("{why}"),
        Some(other) => anyhow::bail!("the agent answers something else: {other:?}"),
        None => {
            let mut courses = Journal::read(&directory)?;
            void(&mut courses);
            let mut notes = vec!["no agent runs on this node with this state directory".to_owned()];
            if courses.iter().any(Course::is_active) {
                notes.push("nobody watches what is active; `nodemedic undo` puts it back".into());
            }
            if is_paused(&directory) {
                notes.push(Refusal::Paused.to_string());
            }
            Ok(Known { courses, notes })
        }
    }
}

/// What a reboot has ended.
fn void(courses: &mut [Course]) {
    let Ok(Some(boot)) = sysctl::read("kernel.random.boot_id") else {
        return;
    };
    for course in courses {
        if course.is_active() && course.boot != boot {
            course.state = State::Void;
        }
    }
}
