//! `nodemedic undo`

use clap::Args;

use super::{Node, exit::Exit, treat::show, treatment_service};
use crate::{
    control::{Answer, Asked, Request, call_or_lock},
    logging,
    model::Ending,
    state,
};

/// Works without a running agent: it reads the journal then.
#[derive(Debug, Args)]
pub(super) struct Undo {
    #[command(flatten)]
    node: Node,
    /// Undo the treatment with this number, as `status` shows it [default: all].
    id: Option<u64>,
}

impl Undo {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        logging::for_a_person();
        let config = self.node.load()?;
        let directory = state::directory(&config.agent.state_dir);
        let request = Request::Undo { id: self.id };
        let answer = match call_or_lock(&config.agent.state_dir, &request)? {
            Asked::Answered(answer) => *answer,
            Asked::Alone(_lock) => {
                let service = treatment_service(&config, &directory);
                match service.undo(self.id, Ending::Requested) {
                    Ok(runs) => Answer::Undone { runs },
                    Err(refusal) => Answer::refused(&refusal),
                }
            }
        };
        show(answer)
    }
}
