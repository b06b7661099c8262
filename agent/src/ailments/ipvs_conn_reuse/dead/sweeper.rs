//! A thread that sweeps one network namespace for as long as it is wanted.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::write,
};
use tracing::{info, warn};

use super::{Left, Limits, Sweep, SweepCounters, sweep::SHARE};
use crate::kernel::{
    conntrack::{self, Event, Resets},
    netns,
};

/// From one pass to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sweeps until it is dropped.
#[derive(Debug)]
pub(super) struct Sweeper {
    end: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Begins; `None` where no process lives in the namespace.
    ///
    /// # Errors
    ///
    /// Where the namespace cannot be entered, or conntrack not be talked to.
    pub(super) fn start(
        netns: u32,
        limits: Limits,
        counters: Arc<SweepCounters>,
    ) -> io::Result<Option<Self>> {
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (began, begun) = mpsc::sync_channel(1);
        let stop = Arc::clone(&end);
        let thread = netns::spawn(netns, "sweep", move || {
            match SweeperThread::new(netns, limits, counters, stop) {
                Ok(mut sweeper) => {
                    let _waiting = began.send(Ok(()));
                    sweeper.run();
                }
                Err(error) => {
                    let _waiting = began.send(Err(error));
                }
            }
        })?;
        let Some(thread) = thread else {
            return Ok(None);
        };
        // It ends without a word where the namespace cannot be entered.
        let fail = |_| io::Error::other(format!("enter network namespace {netns}"));
        begun.recv().map_err(fail)??;
        Ok(Some(Self {
            end,
            thread: Some(thread),
        }))
    }

    /// Whether its thread still runs.
    pub(super) fn is_alive(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // It cannot be full, as nothing else is written to it.
        let _ = write(&*self.end, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic was a log record already.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct SweeperThread {
    netns: u32,
    sweep: Sweep,
    /// None where the kernel gives no events: passes alone find what is dead then.
    resets: Option<Resets>,
    counters: Arc<SweepCounters>,
    end: Arc<OwnedFd>,
    next: Instant,
    /// When a pass may come that cannot wait for its turn.
    earliest: Instant,
    /// The last error, said once.
    trouble: Option<String>,
}

impl SweeperThread {
    fn new(
        netns: u32,
        limits: Limits,
        counters: Arc<SweepCounters>,
        end: Arc<OwnedFd>,
    ) -> io::Result<Self> {
        // Listening first: what is reset from here on is either told or found.
        let resets = Resets::listen()
            .inspect_err(|error| warn!(netns, "no events of conntrack: {error}"))
            .ok();
        Ok(Self {
            netns,
            sweep: Sweep::new(limits, true, Arc::clone(&counters))?,
            resets,
            counters,
            end,
            next: Instant::now(),
            earliest: Instant::now(),
            trouble: None,
        })
    }

    fn run(&mut self) {
        info!(netns = self.netns, "sweeping begins");
        while !self.wait() {
            // While the module is away, asking would load it.
            if !conntrack::netlink_is_there() {
                self.next = Instant::now() + INTERVAL;
                continue;
            }
            let outcome = self.listen().and_then(|()| self.pass_if_due());
            self.say(outcome);
        }
        info!(netns = self.netns, "sweeping ends");
    }

    /// Until there is something to do. Whether it is to end.
    fn wait(&self) -> bool {
        let left = self.next.saturating_duration_since(Instant::now());
        let mut awaited = vec![PollFd::new(&*self.end, PollFlags::IN)];
        awaited.extend(
            self.resets
                .iter()
                .map(|resets| PollFd::new(resets, PollFlags::IN)),
        );
        let timeout = Timespec::try_from(left).ok();
        // An error is a signal's, and the loop comes back here.
        let _ = poll(&mut awaited, timeout.as_ref());
        is_told(&self.end)
    }

    /// What was reset since.
    fn listen(&mut self) -> io::Result<()> {
        let Some(resets) = &mut self.resets else {
            return Ok(());
        };
        while let Some(event) = resets.take()? {
            match event {
                Event::Reset(entry) => {
                    if let Err(error) = self.sweep.was_reset(&entry) {
                        self.counters.left(Left::Error);
                        return Err(error);
                    }
                }
                Event::Lost => {
                    self.counters.left(Left::Events);
                    // A pass finds them.
                    self.next = self.next.min(self.earliest);
                }
            }
            if is_told(&self.end) || Instant::now() >= self.next {
                break;
            }
        }
        Ok(())
    }

    fn pass_if_due(&mut self) -> io::Result<()> {
        let began = Instant::now();
        if began < self.next {
            return Ok(());
        }
        let end = &self.end;
        let outcome = self.sweep.pass(|| is_told(end), |_| {});
        let rest = began.elapsed() * SHARE;
        self.earliest = Instant::now() + rest;
        self.next = Instant::now() + INTERVAL.max(rest);
        outcome
    }

    fn say(&mut self, outcome: io::Result<()>) {
        let now = outcome.err().map(|error| error.to_string());
        if let Some(why) = &now
            && self.trouble != now
        {
            warn!(netns = self.netns, "sweeping: {why}");
        }
        self.trouble = now;
    }
}

fn is_told(end: &OwnedFd) -> bool {
    let mut awaited = [PollFd::new(end, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut awaited, Some(&at_once)).is_ok_and(|ready| ready > 0)
}
