//! The command's end: whom it asks, and when it has to do the work itself.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

use super::{Answer, PATIENCE, Request, SOCKET, line_of, stand_in};
use crate::{
    durable::Directory,
    state::{self, Lock},
};

/// How long an agent that was killed is waited for. Until the kernel has taken down its memory and
/// maps, it holds its socket and its lock.
const DYING: Duration = Duration::from_secs(10);

/// How often it is tried again meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// Who is there to do what was asked for.
#[derive(Debug)]
pub enum Asked {
    /// The agent of the node, which has answered.
    Answered(Box<Answer>),
    /// Nobody but the caller, who has the lock now.
    Alone(Lock),
}

/// Asks the agent that runs on this node; `None` where none does. One that was just killed is
/// waited for.
///
/// # Errors
///
/// When there is one, and it does not answer; when the state directory cannot be trusted.
pub fn call(directory: &Path, request: &Request) -> anyhow::Result<Option<Answer>> {
    let started = Instant::now();
    loop {
        match attempt(directory, request)? {
            Attempt::Answered(answer) => return Ok(Some(*answer)),
            Attempt::Nobody => return Ok(None),
            Attempt::Ended(_) if started.elapsed() < DYING => sleep(AGAIN),
            Attempt::Ended(error) => return Err(error),
        }
    }
}

/// Asks the agent that runs on this node. Where none does, or it was just killed, the caller gets
/// the lock, and may do what the agent would. `configured` is empty for the usual directory.
///
/// # Errors
///
/// When there is an agent that does not answer; when another process keeps the lock; when the
/// state directory cannot be made or trusted.
pub fn call_or_lock(configured: &Path, request: &Request) -> anyhow::Result<Asked> {
    let directory = state::directory(configured);
    let started = Instant::now();
    loop {
        let is_over = started.elapsed() >= DYING;
        match attempt(&directory, request)? {
            Attempt::Answered(answer) => return Ok(Asked::Answered(answer)),
            Attempt::Ended(error) if is_over => return Err(error),
            // The process that has the lock may not listen yet, or not any more.
            Attempt::Nobody => match Lock::take(configured)? {
                Ok(lock) => return Ok(Asked::Alone(lock)),
                Err(held) if is_over => bail!("{held}"),
                Err(_) => {}
            },
            Attempt::Ended(_) => {}
        }
        sleep(AGAIN);
    }
}

/// What came of one try.
enum Attempt {
    Answered(Box<Answer>),
    /// Nobody listens.
    Nobody,
    /// The agent that listened has ended before it answered.
    Ended(anyhow::Error),
}

fn attempt(directory: &Path, request: &Request) -> anyhow::Result<Attempt> {
    let Some(directory) = Directory::open_existing(directory)? else {
        return Ok(Attempt::Nobody);
    };
    match attempt_in(&directory, request)? {
        Attempt::Nobody => {}
        attempt => return Ok(attempt),
    }
    // Anybody can make something there: what is not to be trusted is as good as nothing.
    match Directory::open_existing(&stand_in(&directory)?) {
        Ok(Some(stand_in)) => attempt_in(&stand_in, request),
        Ok(None) | Err(_) => Ok(Attempt::Nobody),
    }
}

fn attempt_in(directory: &Directory, request: &Request) -> anyhow::Result<Attempt> {
    let path = directory.path(SOCKET);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(Attempt::Nobody),
                _ => Err(error).with_context(|| format!("connect to {}", path.display())),
            };
        }
    };
    match exchange(stream, request) {
        Ok(answer) => Ok(Attempt::Answered(Box::new(answer))),
        Err(error) => {
            let has_ended = has_ended(&error);
            let error = error.context(format!("ask the agent at {}", path.display()));
            if has_ended {
                Ok(Attempt::Ended(error))
            } else {
                Err(error)
            }
        }
    }
}

/// Whether it is the end of the peer by which an exchange has failed.
fn has_ended(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(io::Error::kind);
    matches!(
        kind,
        Some(
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        )
    )
}

fn exchange<T: DeserializeOwned>(mut stream: UnixStream, request: &Request) -> anyhow::Result<T> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(line_of(request)?.as_bytes())?;
    let mut line = String::new();
    // A hundred runs are some 100 KiB.
    BufReader::new(stream.take(16 << 20)).read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(serde_json::from_str(&line)?)
}
