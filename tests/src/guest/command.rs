//! Runs programs with a time limit and keeps what they say.

use std::io::{Read, Seek as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// For messages: what was run.
    command: String,
}

impl Output {
    /// What it printed, if it succeeded.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.status.success(),
            "`{}` ended with {}: {}{}",
            self.command,
            self.status,
            self.stderr,
            self.stdout
        );
        Ok(self.stdout)
    }
}

/// A script for the shell.
pub(crate) fn shell(script: &str, limit: Duration) -> Result<Output> {
    run(Command::new("/bin/sh").args(["-c", script]), limit)
}

/// Whether a child has ended when the time is up. Looking again and again would take the one CPU
/// from the child.
pub(super) fn ends_within(child: &Child, limit: Duration) -> Result<bool> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty());
    let process = process.context("open a child's pidfd")?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.try_into().context("a limit that is too long")?;
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(ended) => return Ok(ended > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for a child"),
        }
    }
}

/// Its output goes to files: a pipe would make a child that it left behind keep us waiting.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let shown = shown(command);
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("start `{shown}`"))?;
    let ended = ends_within(&child, limit)?;
    if !ended {
        child.kill().with_context(|| format!("kill `{shown}`"))?;
    }
    let status = child
        .wait()
        .with_context(|| format!("wait for `{shown}`"))?;
    if !ended {
        bail!(
            "`{shown}` did not end within {limit:?}: {}",
            text(&mut stderr)?
        );
    }
    Ok(Output {
        status,
        stdout: text(&mut stdout)?,
        stderr: text(&mut stderr)?,
        command: shown,
    })
}

fn text(file: &mut std::fs::File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn shown(command: &Command) -> String {
    let program = [command.get_program()].into_iter();
    let words = program.chain(command.get_args());
    let words = words.map(|word| word.display().to_string());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_kept() {
        let output = shell("echo out; echo err >&2; exit 3", Duration::from_secs(20)).unwrap();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert!(
            output
                .ok()
                .unwrap_err()
                .to_string()
                .contains("exit status: 3")
        );
    }

    #[test]
    fn what_takes_too_long_is_an_error() {
        let started = Instant::now();
        let error = shell("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
