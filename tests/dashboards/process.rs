//! Programs that run while a check looks at them.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::eventually::eventually;
use serde_json::Value;
use tempfile::TempDir;

/// From the start of an agent to its first report, on a slow machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A program whose log is read to its end, so that it never fills the pipe. Killed at the end.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let stderr = child.stderr.take().context("take its log")?;
        let log = Arc::<Mutex<Vec<_>>>::default();
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Ok(Self { child, log })
    }

    /// Waits until a line of the log tells something.
    pub(crate) fn told<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        eventually(SOON, what, || {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let mut found = log.iter().filter_map(|line| find(line));
            found.next().with_context(|| log.join("\n"))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent, or a dispatcher, on ports of its own.
pub(crate) struct Agent {
    process: Process,
    /// Of its pages.
    pub(crate) address: SocketAddr,
    _state: TempDir,
}

impl Agent {
    pub(crate) fn start(program: &OsString, arguments: &[&str]) -> Result<Self> {
        let state = tempfile::tempdir().context("make a folder")?;
        let mut command = Command::new(program);
        command.args(["run", "--listen=127.0.0.1:0", "--log-format=json"]);
        command.arg("--health-listen=127.0.0.1:0");
        command.arg("--state-dir").arg(state.path()).args(arguments);
        Self::of(&mut command, state)
    }

    pub(crate) fn dispatcher(program: &OsString, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args([
            "dispatch",
            "--listen=127.0.0.1:0",
            "--http-listen=127.0.0.1:0",
            "--health-listen=127.0.0.1:0",
        ]);
        command.arg("--log-format=json").args(arguments);
        Self::of(&mut command, tempfile::tempdir().context("make a folder")?)
    }

    fn of(command: &mut Command, state: TempDir) -> Result<Self> {
        let process = Process::start(command)?;
        let address = process.told("where it listens", |line| named(line, "address"))?;
        Ok(Self {
            process,
            address,
            _state: state,
        })
    }

    /// Where it takes alerts.
    pub(crate) fn webhook(&self) -> Result<SocketAddr> {
        self.process
            .told("where it takes alerts", |line| named(line, "webhook"))
    }
}

/// The address that a record of the log has under a name.
fn named(line: &str, name: &str) -> Option<SocketAddr> {
    let record: Value = serde_json::from_str(line).ok()?;
    record[name].as_str()?.parse().ok()
}
