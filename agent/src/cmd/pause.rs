//! `nodemedic pause`, `nodemedic resume`

use clap::Args;

use super::{Node, exit::Exit};
use crate::{render::print, state, treatment};

#[derive(Debug, Args)]
pub(super) struct Pause {
    #[command(flatten)]
    node: Node,
}

#[derive(Debug, Args)]
pub(super) struct Resume {
    #[command(flatten)]
    node: Node,
}

impl Pause {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let directory = state::make(&self.node.load()?.agent.state_dir)?;
        treatment::pause(&directory, true)?;
        print("new treatments are blocked until `nodemedic resume`; active treatments continue\n")?;
        Ok(Exit::Healthy)
    }
}

impl Resume {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let directory = state::make(&self.node.load()?.agent.state_dir)?;
        treatment::pause(&directory, false)?;
        print("new treatments are allowed again, as configured\n")?;
        Ok(Exit::Healthy)
    }
}
