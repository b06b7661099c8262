//! A real scrape of the agent, as Prometheus' linter sees it.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::http;
use serde_json::Value;
use tempfile::TempDir;

use crate::agent;
use crate::check::{Check, Verdict};
use crate::promtool;

/// From the start to the first report: an ailment collects facts and attaches before.
const SOON: Duration = Duration::from_secs(60);

/// An agent on a port of its own, killed at the end.
struct Running {
    process: Child,
    _state: TempDir,
}

impl Running {
    fn start(program: &OsString) -> Result<Self> {
        let state = tempfile::tempdir().context("make a folder")?;
        let process = Command::new(program)
            .args(["run", "--listen=127.0.0.1:0", "--log-format=json"])
            .arg("--state-dir")
            .arg(state.path())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self {
            process,
            _state: state,
        })
    }

    /// The metrics, once every ailment is attached or has said why not.
    fn scrape(&mut self) -> Result<String> {
        let address = self.address()?;
        eventually(SOON, "the agent is ready", || http::get(address, "/readyz"))?;
        http::get(address, "/metrics")
    }

    /// Where it listens, as its log says. The log is read to its end, so that it never fills the
    /// pipe.
    fn address(&mut self) -> Result<SocketAddr> {
        let log = self.process.stderr.take().context("take its log")?;
        let (found, listens) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                // Nobody waits for another one.
                let _ = address(&line).map(|address| found.send(address));
            }
        });
        listens
            .recv_timeout(SOON)
            .context("wait for the agent to say where it listens")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The address in the record that says where the agent listens.
fn address(line: &str) -> Option<SocketAddr> {
    let record: Value = serde_json::from_str(line).ok()?;
    record["address"].as_str()?.parse().ok()
}

fn a_scrape_pleases_promtool() -> Result<Verdict> {
    agent::program().then(|program| {
        promtool::find().then(|promtool| {
            let page = tempfile::NamedTempFile::new().context("make a file")?;
            fs::write(&page, Running::start(&program)?.scrape()?).context("write the scrape")?;
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
