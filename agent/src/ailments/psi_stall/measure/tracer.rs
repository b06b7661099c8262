//! The tracepoints of the scheduler, which every switch of tasks passes: attached for a few
//! seconds while tasks wait for CPUs or disks, and not again at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::Settings;
use crate::{
    kernel::bpf::{Object, Probes},
    model::{ProbeReport, ProgramStats},
    wakeup::WakeUp,
};

/// What the trace over tasks has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceReading {
    /// Whether its probes are attached now.
    pub on: bool,
    /// Whether they were in some of the window.
    pub traced: bool,
    /// How often it has begun.
    pub times: u64,
    /// For how long its probes were attached in all, seconds.
    pub seconds: f64,
}

/// The trace over tasks, on or off.
#[derive(Debug)]
pub(super) struct TaskTracer {
    probes: Probes,
    wakeup: WakeUp,
    lasts: Duration,
    pause: Duration,
    /// Since when they are attached.
    began: Option<Instant>,
    ended: Option<Instant>,
    times: u64,
    before: Duration,
}

impl TaskTracer {
    /// Attaches its probes once, to know whether the kernel takes them.
    pub(super) fn new(
        mut probes: Probes,
        settings: &Settings,
        object: &mut Object,
        wakeup: &WakeUp,
    ) -> Self {
        probes.attach(object);
        probes.detach();
        Self {
            probes,
            wakeup: wakeup.clone(),
            lasts: settings.trace_duration,
            pause: settings.trace_cooldown,
            began: None,
            ended: None,
            times: 0,
            before: Duration::ZERO,
        }
    }

    /// Whether it ought to begin now, given that tasks wait.
    pub(super) fn is_due(&self) -> bool {
        self.is_over() && self.is_possible() && !self.lasts.is_zero()
    }

    fn is_possible(&self) -> bool {
        self.probes.reports().iter().all(|it| it.hook.is_some())
    }

    /// Whether it is off, and has been for as long as it pauses.
    pub(super) fn is_over(&self) -> bool {
        self.began.is_none() && self.ended.is_none_or(|ended| ended.elapsed() >= self.pause)
    }

    /// Begins, for its time: a reading is called for at the end of it.
    pub(super) fn begin(&mut self, object: &mut Object) {
        self.probes.attach(object);
        if !self.is_possible() {
            return;
        }
        self.began = Some(Instant::now());
        self.times += 1;
        let lasts = self.lasts;
        let wakeup = self.wakeup.clone();
        let call = move || {
            thread::sleep(lasts);
            wakeup.request();
        };
        if let Err(error) = thread::Builder::new()
            .name("psi-trace".to_owned())
            .spawn(call)
        {
            tracing::warn!("tracing ends only at the next reading: {error}");
        }
    }

    /// Ends it when its time is over.
    pub(super) fn end_in_time(&mut self) {
        let over = self.began.take_if(|began| began.elapsed() >= self.lasts);
        if let Some(began) = over {
            self.probes.detach();
            self.ended = Some(Instant::now());
            self.before += began.elapsed();
        }
    }

    pub(super) fn reading(&self, traced: bool) -> TraceReading {
        let now = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        TraceReading {
            on: self.is_on(),
            traced,
            times: self.times,
            seconds: (self.before + now).as_secs_f64(),
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn reports(&self) -> &[ProbeReport] {
        self.probes.reports()
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probes.stats()
    }
}
