//! The tracepoints that tell who waits: attached while passes are slow, so that they
//! cost nothing on a healthy node.

use std::time::{Duration, Instant};

use crate::{
    ailments::ipvs_estimation::{Settings, settings::TraceWhen},
    kernel::bpf::{Attached, Object, PlannedProbe},
    model::{Missing, ProbeReport, ProgramStats},
};

/// The probes on waits, attached or not.
#[derive(Debug)]
pub(super) struct WaitTracer {
    when: TraceWhen,
    lasts: Duration,
    planned: Vec<PlannedProbe>,
    attached: Vec<Attached>,
    /// What the kernel said when they were attached last.
    reports: Vec<ProbeReport>,
    /// Their statistics when they were detached last.
    stats: Vec<ProgramStats>,
    until: Option<Instant>,
}

impl WaitTracer {
    /// Attaches them once, to know whether the kernel takes them.
    pub(super) fn new(planned: &[PlannedProbe], settings: &Settings, object: &mut Object) -> Self {
        let with_hooks = |probe: &PlannedProbe| match settings.trace_when {
            TraceWhen::Never => PlannedProbe::impossible(probe.probe, &switched_off()),
            TraceWhen::Slow | TraceWhen::Always => probe.clone().with_hooks(&settings.hooks),
        };
        let mut watch = Self {
            when: settings.trace_when,
            lasts: settings.trace_linger,
            planned: planned.iter().map(with_hooks).collect(),
            attached: Vec::new(),
            reports: Vec::new(),
            stats: Vec::new(),
            until: None,
        };
        watch.begin(object);
        if watch.when != TraceWhen::Always {
            watch.end();
        }
        watch
    }

    pub(super) fn is_on(&self) -> bool {
        !self.attached.is_empty()
    }

    /// Whether it ought to be on, given that passes are slow or not.
    pub(super) fn is_wanted(&mut self, slow: bool) -> bool {
        let now = Instant::now();
        if slow {
            self.until = Some(now + self.lasts);
        }
        let wanted = match self.when {
            TraceWhen::Always => true,
            TraceWhen::Never => false,
            TraceWhen::Slow => self.until.is_some_and(|until| now < until),
        };
        wanted && !self.planned.is_empty()
    }

    pub(super) fn begin(&mut self, object: &mut Object) {
        (self.attached, self.reports) = self
            .planned
            .iter()
            .map(|probe| object.attach(probe))
            .unzip();
    }

    pub(super) fn end(&mut self) {
        self.stats = self.programs();
        self.attached.clear();
    }

    pub(super) fn reports(&self) -> &[ProbeReport] {
        &self.reports
    }

    /// Counters must not fall while the watch is off.
    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        if self.is_on() {
            self.attached.iter().flat_map(Attached::stats).collect()
        } else {
            self.stats.clone()
        }
    }
}

fn switched_off() -> Missing {
    Missing {
        what: "watch over waits".to_owned(),
        why: "the configuration's `trace_when` is \"never\"".to_owned(),
        remedy: "set it to \"slow\"".to_owned(),
    }
}
