//! Hearing of what is rare at once, not at the next reading: a thread that sleeps until
//! the kernel has something to say costs nothing.

use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};

/// A thread that calls whenever a source has something to say. Dropping it ends the
/// thread.
#[derive(Debug)]
pub(super) struct PollThread {
    /// Closed to make the thread end.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl PollThread {
    /// Calls `act` with each source on which one of the events has come, for each burst
    /// of them; `act` has to take them off the source where they stay on it. A source
    /// that fails is not listened to any more.
    pub(super) fn start<S: AsFd + Send + 'static>(
        name: &str,
        mut sources: Vec<S>,
        events: PollFlags,
        mut act: impl FnMut(&mut S) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = UnixStream::pair().context("make a pair of sockets")?;
        let listen = move || {
            while let Some(come) = wait(&sources, events, stopped.as_fd()) {
                for (source, come) in sources.iter_mut().zip(&come) {
                    if come.intersects(events) {
                        act(source);
                    }
                }
                let mut come = come.into_iter();
                sources.retain(|_| come.next().is_some_and(|come| !has_failed(come)));
            }
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(listen)
            .with_context(|| format!("start the thread {name}"))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// Waits for an event; what has come on each source. `None` when it is time to end.
fn wait<S: AsFd>(
    sources: &[S],
    events: PollFlags,
    stopped: BorrowedFd<'_>,
) -> Option<Vec<PollFlags>> {
    let sources = sources.iter().map(AsFd::as_fd);
    let sources = sources.map(|source| PollFd::from_borrowed_fd(source, events));
    let stopped = PollFd::from_borrowed_fd(stopped, PollFlags::IN);
    let mut waited_for: Vec<_> = sources.chain([stopped]).collect();
    match poll(&mut waited_for, None) {
        Ok(_) => {
            let mut come: Vec<_> = waited_for.iter().map(PollFd::revents).collect();
            let stopped = come.pop().unwrap_or(PollFlags::IN);
            stopped.is_empty().then_some(come)
        }
        Err(rustix::io::Errno::INTR) => Some(vec![PollFlags::empty(); waited_for.len() - 1]),
        Err(error) => {
            tracing::warn!("events are noticed only at the next reading: {error}");
            None
        }
    }
}

/// It would be told without end.
fn has_failed(come: PollFlags) -> bool {
    come.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

impl Drop for PollThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It may have panicked, and has said so.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        sync::mpsc,
        time::Duration,
    };

    use super::*;

    /// Ends a test that would wait for ever, however slow the machine.
    const LONG: Duration = Duration::from_secs(300);

    #[test]
    fn it_calls_for_the_source_that_speaks_and_goes_on_without_one_that_fails() {
        let (mut first, heard_first) = UnixStream::pair().expect("sockets");
        let (mut second, heard_second) = UnixStream::pair().expect("sockets");
        let (called, calls) = mpsc::channel();
        let act = move |source: &mut UnixStream| {
            let mut byte = [0];
            if source.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
                called.send(byte[0]).expect("the test listens");
            }
        };
        let sources = vec![heard_first, heard_second];
        let poll_thread = PollThread::start("test", sources, PollFlags::IN, act).expect("a thread");
        first.write_all(b"a").expect("written");
        assert_eq!(calls.recv_timeout(LONG), Ok(b'a'));
        drop(first);
        second.write_all(b"b").expect("written");
        assert_eq!(calls.recv_timeout(LONG), Ok(b'b'));
        drop(poll_thread);
        assert!(calls.recv().is_err(), "its thread has ended");
    }
}
