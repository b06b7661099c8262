//! `nodemedic config`

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::exit::Exit;
use crate::{config, render::print};

/// Exactly one of `--default` and `--check`.
#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("what").args(["default", "check"]).required(true))]
pub(super) struct Config {
    /// Print every key with its default and its meaning, as a configuration file.
    #[arg(long)]
    default: bool,
    /// Print the defaults as tables in Markdown.
    #[arg(long, conflicts_with = "check")]
    markdown: bool,
    /// Check this file and print every error in it.
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

impl Config {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        if let Some(file) = &self.check {
            config::load(Some(file))?;
            print(&format!("{}: the configuration is valid\n", file.display()))?;
            return Ok(Exit::Healthy);
        }
        let defaults = config::Config::default();
        print(&if self.markdown {
            config::as_markdown(&defaults)
        } else {
            config::as_toml(&defaults)
        }?)?;
        Ok(Exit::Healthy)
    }
}
