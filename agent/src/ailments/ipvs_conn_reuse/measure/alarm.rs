//! Hearing at once that a destination was drained or removed. It is rare: an operator or
//! a controller does it, so an event and a thread that sleeps cost nothing.

use std::{
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use rustix::event::{PollFd, PollFlags, poll};

/// A thread that calls for each burst of events. Dropping it ends the thread.
pub(super) struct Alarm {
    /// Closed to make the thread end.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    pub(super) fn start(
        mut changes: RingBuf<MapData>,
        mut act: impl FnMut() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = UnixStream::pair().context("make a pair of sockets")?;
        let listen = move || {
            while comes(&changes, &stopped) {
                while changes.next().is_some() {}
                if let Err(error) = act() {
                    tracing::warn!("the packet hook of IPVS is not watched: {error:#}");
                }
            }
        };
        let thread = thread::Builder::new()
            .name("ipvs-changes".to_owned())
            .spawn(listen)
            .context("start a thread for changes of IPVS")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

/// Waits for an event; false when it is time to end.
fn comes(changes: &RingBuf<MapData>, stopped: &UnixStream) -> bool {
    let mut waited_for = [
        PollFd::from_borrowed_fd(changes.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
    ];
    match poll(&mut waited_for, None) {
        Ok(_) => waited_for[1].revents().is_empty(),
        Err(rustix::io::Errno::INTR) => true,
        Err(error) => {
            tracing::warn!("changes of IPVS are noticed at each reading only: {error}");
            false
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It may have panicked, and has said so.
            let _ended = thread.join();
        }
    }
}
