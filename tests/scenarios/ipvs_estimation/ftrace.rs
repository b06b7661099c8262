//! The kernel's own tracer on one function: when each call began, and how long it took.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use nodemedic_tests::guest::Guest;

const FOLDER: &str = "/sys/kernel/tracing";

/// Traces until it is dropped.
pub(super) struct Tracer<'g> {
    guest: &'g Guest,
    function: &'static str,
    /// Since when, seconds since the epoch.
    pub(super) since: f64,
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Seconds since the epoch.
    pub(super) began: f64,
    pub(super) seconds: f64,
}

impl<'g> Tracer<'g> {
    pub(super) fn on(guest: &'g Guest, function: &'static str) -> Result<Self> {
        // From here on, so that a failure half way leaves nothing either.
        let mut tracer = Self {
            guest,
            function,
            since: f64::INFINITY,
        };
        guest.sh(&format!(
            "cd {FOLDER} && echo > trace && echo mono > trace_clock && \
             echo {function} > set_ftrace_filter && echo function_graph > current_tracer && \
             echo funcgraph-abstime > trace_options && echo 1 > tracing_on"
        ))?;
        tracer.since = unix_seconds()?;
        Ok(tracer)
    }

    /// The calls so far.
    pub(super) fn calls(&self) -> Result<Vec<Call>> {
        let text = self.guest.sh(&format!("cat {FOLDER}/trace"))?;
        let lost = text.contains("LOST");
        ensure!(!lost, "the tracer has lost events: {text}");
        let ahead = ahead_of_monotonic()?;
        let lines = text.lines().filter(|line| line.contains(self.function));
        // A line without a duration is of a call that has not ended.
        let calls = lines.filter_map(parse).map(|call| Call {
            began: call.began + ahead,
            ..call
        });
        Ok(calls.collect())
    }
}

impl Drop for Tracer<'_> {
    fn drop(&mut self) {
        // The option is gone with its tracer.
        let off = format!(
            "cd {FOLDER} && echo nofuncgraph-abstime > trace_options && \
             echo nop > current_tracer && echo > set_ftrace_filter && echo local > trace_clock"
        );
        if let Err(error) = self.guest.sh(&off) {
            println!("{error:#}");
        }
    }
}

/// `  123.456789 |   0)  # 65012.345 us |  estimation_timer [ip_vs]();`
fn parse(line: &str) -> Option<Call> {
    let (began, rest) = line.split_once('|')?;
    let (duration, _) = rest.split_once(" us ")?;
    let seconds = duration.split_whitespace().last()?.parse::<f64>().ok()? / 1e6;
    let began = began.trim().parse().ok()?;
    Some(Call { began, seconds })
}

/// How far the clock of the day is before `CLOCK_MONOTONIC`, seconds.
fn ahead_of_monotonic() -> Result<f64> {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).context("read CLOCK_MONOTONIC")?;
    let monotonic = monotonic.tv_sec() as f64 + monotonic.tv_nsec() as f64 / 1e9;
    Ok(unix_seconds()? - monotonic)
}

pub(super) fn unix_seconds() -> Result<f64> {
    let day = SystemTime::now().duration_since(UNIX_EPOCH);
    let day = day.context("the clock stands before the epoch")?;
    Ok(day.as_secs_f64())
}
