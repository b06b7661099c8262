//! A real scrape of the agent, as Prometheus' linter sees it.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::http;

use crate::agent;
use crate::check::{Check, Verdict};
use crate::process::{Agent, SOON};
use crate::promtool;

/// The metrics, once every ailment is attached or has said why not.
fn scrape(program: &OsString) -> Result<String> {
    let agent = Agent::start(program, &[])?;
    eventually(SOON, "the agent is ready", || {
        http::get(agent.address, "/readyz")
    })?;
    http::get(agent.address, "/metrics")
}

fn a_scrape_pleases_promtool() -> Result<Verdict> {
    agent::program().then(|program| {
        promtool::find().then(|promtool| {
            let page = tempfile::NamedTempFile::new().context("make a file")?;
            fs::write(&page, scrape(&program)?).context("write the scrape")?;
            let said = promtool::feed(&promtool, &["check", "metrics"], page.path())?;
            ensure!(said.is_empty(), "{said}");
            Ok(Verdict::Passed)
        })
    })
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("scrape::a_scrape_pleases_promtool", a_scrape_pleases_promtool),
];
