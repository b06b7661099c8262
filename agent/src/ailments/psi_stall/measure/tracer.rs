//! The tracepoints of the scheduler, which every switch of tasks passes: attached for a few
//! seconds while tasks wait for CPUs or disks, and not again at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::{
    kernel::bpf::{Attached, Object, PlannedProbe},
    model::{ProbeReport, ProgramStats},
    wakeup::WakeUp,
};

/// What the watch over tasks has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchReading {
    /// Whether its probes are attached now.
    pub on: bool,
    /// Whether they were in some of the window.
    pub watched: bool,
    /// How often it has begun.
    pub times: u64,
    /// For how long its probes were attached in all, seconds.
    pub seconds: f64,
}

/// The watch over tasks, on or off.
#[derive(Debug)]
pub(super) struct TaskTracer {
    planned: PlannedProbe,
    wakeup: WakeUp,
    lasts: Duration,
    pause: Duration,
    running: Option<(Attached, Instant)>,
    report: ProbeReport,
    /// Statistics of the programs when they were detached last.
    stats: Vec<ProgramStats>,
    ended: Option<Instant>,
    times: u64,
    before: Duration,
}

impl TaskTracer {
    /// Attaches its probes once, to know whether the kernel takes them.
    pub(super) fn new(
        planned: &PlannedProbe,
        settings: &Settings,
        object: &mut Object,
        wakeup: &WakeUp,
    ) -> Self {
        let planned = planned.clone().with_hooks(&settings.hooks);
        let (attached, report) = object.attach(&planned);
        let stats = attached.stats();
        Self {
            planned,
            wakeup: wakeup.clone(),
            lasts: settings.trace_duration,
            pause: settings.trace_cooldown,
            running: None,
            report,
            stats,
            ended: None,
            times: 0,
            before: Duration::ZERO,
        }
    }

    /// Whether it ought to begin now, given that tasks wait.
    pub(super) fn is_due(&self) -> bool {
        self.is_over() && self.report.hook.is_some() && !self.lasts.is_zero()
    }

    /// Whether it is off, and has been for as long as it pauses.
    pub(super) fn is_over(&self) -> bool {
        self.running.is_none() && self.ended.is_none_or(|ended| ended.elapsed() >= self.pause)
    }

    /// Begins, for its time: a reading is called for at the end of it.
    pub(super) fn begin(&mut self, object: &mut Object) {
        let (attached, report) = object.attach(&self.planned);
        self.report = report;
        if self.report.hook.is_none() {
            return;
        }
        self.running = Some((attached, Instant::now()));
        self.times += 1;
        let lasts = self.lasts;
        let wakeup = self.wakeup.clone();
        let call = move || {
            thread::sleep(lasts);
            wakeup.request();
        };
        if let Err(error) = thread::Builder::new()
            .name("psi-watch".to_owned())
            .spawn(call)
        {
            tracing::warn!("the watch over tasks ends at the next reading only: {error}");
        }
    }

    /// Ends it when its time is over.
    pub(super) fn end_in_time(&mut self) {
        let over = self
            .running
            .take_if(|(_, began)| began.elapsed() >= self.lasts);
        if let Some((attached, began)) = over {
            self.stats = attached.stats();
            drop(attached);
            self.ended = Some(Instant::now());
            self.before += began.elapsed();
        }
    }

    pub(super) fn reading(&self, watched: bool) -> WatchReading {
        let now = self.running.as_ref();
        let now = now.map_or(Duration::ZERO, |(_, began)| began.elapsed());
        WatchReading {
            on: self.running.is_some(),
            watched,
            times: self.times,
            seconds: (self.before + now).as_secs_f64(),
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn report(&self) -> ProbeReport {
        self.report.clone()
    }

    /// Counters must not fall while the watch is off.
    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        match &self.running {
            Some((attached, _)) => attached.stats(),
            None => self.stats.clone(),
        }
    }
}
