//! `nodemedic undo`

use clap::Args;

use super::{Node, exit::Exit, treat::show};
use crate::{
    control::{Answer, Request, call},
    logging, state,
    state::Lock,
    treatment::{Ending, Practice},
};

/// Works without an agent too: the journal tells what is to be put back.
#[derive(Debug, Args)]
pub(super) struct Undo {
    #[command(flatten)]
    node: Node,
    /// Which treatment, as `status` numbers them; all, if none is given.
    id: Option<u64>,
}

impl Undo {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        logging::for_a_person();
        let config = self.node.load()?;
        let directory = state::directory(&config.agent.state_dir);
        let request = Request::Undo { id: self.id };
        let answer = match call(&directory, &request)? {
            Some(answer) => answer,
            None => {
                let _lock = Lock::take(&config.agent.state_dir)?;
                let practice =
                    Practice::open(config.treatment_policy.with(config.treatments), &directory);
                match practice.undo(self.id, Ending::Requested) {
                    Ok(courses) => Answer::Undone { courses },
                    Err(refusal) => Answer::refused(&refusal),
                }
            }
        };
        show(answer)
    }
}
