//! The agent on the machine itself: of all figures the only ones that are no emulator's.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::figures::Memory;
use crate::eventually::eventually;
use crate::http;
use crate::usage;

const WATCHED: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Serialize)]
pub(super) struct Native {
    memory: Memory,
    /// CPU time by wall time.
    idle_cpu: f64,
}

/// For a minute, with nothing configured.
pub(super) fn measure(agent: &OsStr) -> Result<Native> {
    let folder = tempfile::tempdir().context("make a folder for the agent")?;
    let log = folder.path().join("log");
    let agent = Agent(start(agent, folder.path(), &log)?);
    let address = eventually(PATIENCE, "where the agent listens", || address(&log))?;
    eventually(PATIENCE, "a reading", || has_reading(address))?;
    let pid = agent.0.id();
    let idle_cpu = usage::cpu_share(pid, || {
        sleep(WATCHED);
        Ok(())
    })?;
    Ok(Native {
        memory: usage::memory(pid)?,
        idle_cpu,
    })
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do, and nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(agent: &OsStr, state: &Path, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    Command::new(agent)
        .args([
            "run",
            "--listen=127.0.0.1:0",
            "--log-format=json",
            "--state-dir",
        ])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .context("start the agent")
}

/// The agent has chosen a port and says which.
fn address(log: &Path) -> Result<SocketAddr> {
    let log = fs::read_to_string(log).context("read the agent's log")?;
    let records = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut addresses = records.filter_map(|record| Some(record["address"].as_str()?.to_owned()));
    let address = addresses
        .next()
        .with_context(|| format!("it says: {log}"))?;
    address
        .parse()
        .with_context(|| format!("the address {address:?}"))
}

fn has_reading(address: SocketAddr) -> Result<()> {
    let report = http::get(address, "/report")?;
    let report: Value = serde_json::from_str(&report).context("read /report")?;
    let reading = &report["ailments"][0]["reading"];
    reading.as_object().context("there is no reading").map(drop)
}
