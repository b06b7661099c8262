//! Runs programs with a time limit and keeps what they say.

use std::io::{Read, Seek as _};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

const POLL: Duration = Duration::from_millis(5);

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

/// A script for the shell, behind a prefix like `ip netns exec NAME`.
pub(crate) fn shell(prefix: &[&str], script: &str, limit: Duration) -> Result<Output> {
    let mut words = prefix.iter().copied().chain(["/bin/sh", "-c", script]);
    let mut command = Command::new(words.next().unwrap_or("/bin/sh"));
    run(command.args(words), limit)
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
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().with_context(|| format!("kill `{shown}`"))?;
            child
                .wait()
                .with_context(|| format!("wait for `{shown}`"))?;
            bail!(
                "`{shown}` did not end within {limit:?}: {}",
                text(&mut stderr)?
            );
        }
        sleep(POLL);
    };
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
        let output = shell(
            &[],
            "echo out; echo err >&2; exit 3",
            Duration::from_secs(20),
        )
        .unwrap();
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
        let error = shell(&["env"], "exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
