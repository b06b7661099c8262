//! The process that runs one scenario, as PID 1 starts it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Guest;
use super::command::ends_within;
use crate::phase::{self, Busy};
use crate::protocol::{INPUT_ENV, KERNEL_ENV, Outcome, SCENARIO_ENV, Task, Verdict};
use crate::scenario::{self, Registry};

const VERDICT: &str = "/run/verdict.json";
const LOG: &str = "/run/scenario.log";

/// How often orphans are buried.
const POLL: Duration = Duration::from_millis(200);

/// In the child: runs the scenario and leaves its outcome. A panic leaves none.
pub(crate) fn run(registry: &Registry, name: &str) -> ExitCode {
    match scenario(registry, name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn scenario(registry: &Registry, name: &str) -> Result<()> {
    let scenario = registry
        .find(name)
        .with_context(|| format!("no scenario {name}"))?;
    let begin = phase::busy();
    let outcome = match (scenario.run)(&Guest::new()) {
        Ok(scenario::Verdict::Passed) => Outcome::Passed,
        Ok(scenario::Verdict::Measured(value)) => Outcome::Measured(value),
        Ok(scenario::Verdict::Skipped(why)) => Outcome::Skipped(why),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    let verdict = Verdict {
        outcome,
        busy: phase::since(begin),
    };
    let json = serde_json::to_vec(&verdict).context("write the verdict as JSON")?;
    fs::write(VERDICT, json).with_context(|| format!("write {VERDICT}"))
}

/// In PID 1: runs a scenario in a child, and gives its verdict and what was printed.
pub(crate) fn supervise(task: &Task, kernel: &str) -> Result<(Verdict, String)> {
    // Absent before the first scenario.
    let _ = fs::remove_file(VERDICT);
    let log = File::create(LOG).with_context(|| format!("create {LOG}"))?;
    let child = Command::new("/proc/self/exe")
        .env(SCENARIO_ENV, &task.name)
        .env(KERNEL_ENV, kernel)
        .env(INPUT_ENV, task.input.to_string())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log)
        .spawn()
        .context("start a scenario")?;
    let end = wait(&child, task.limit)?;
    let verdict = match end {
        Some(status) => verdict(Path::new(VERDICT), status),
        None => failed(format!("no verdict within {:?}", task.limit)),
    };
    let log = fs::read(LOG).with_context(|| format!("read {LOG}"))?;
    Ok((verdict, String::from_utf8_lossy(&log).into_owned()))
}

/// Waits for one child, and buries every orphan that PID 1 has inherited.
fn wait(child: &Child, limit: Duration) -> Result<Option<WaitStatus>> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let deadline = Instant::now() + limit;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)).context("wait for a scenario")? {
            WaitStatus::StillAlive if Instant::now() > deadline => return Ok(None),
            WaitStatus::StillAlive => {
                ends_within(child, POLL)?;
            }
            status if status.pid() == Some(pid) => return Ok(Some(status)),
            _ => {}
        }
    }
}

fn verdict(path: &Path, status: WaitStatus) -> Verdict {
    match (fs::read(path), status) {
        (Ok(json), _) => serde_json::from_slice(&json)
            .unwrap_or_else(|error| failed(format!("its verdict is garbled: {error}"))),
        (Err(_), WaitStatus::Exited(_, 101)) => failed("it panicked".into()),
        (Err(_), status) => failed(format!("it ended without a verdict: {status:?}")),
    }
}

/// Of one that has left no verdict, nor what kept the guest busy.
fn failed(why: String) -> Verdict {
    Verdict {
        outcome: Outcome::Failed(why),
        busy: Busy::default(),
    }
}

/// Waits until every child is dead and buried.
pub(crate) fn bury_all() -> Result<()> {
    loop {
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error).context("wait for the killed"),
        }
    }
}
