//! The tracepoints that tell who waits: attached while passes are slow, so that they
//! cost nothing on a healthy node.

use std::time::{Duration, Instant};

use crate::{
    ailments::ipvs_estimation::{Settings, settings::TraceWhen},
    kernel::bpf::{Object, PlannedProbe, Probes},
    model::{Missing, ProbeReport, ProgramStats},
};

/// The probes on waits, attached or not.
#[derive(Debug)]
pub(super) struct WaitTracer {
    when: TraceWhen,
    lasts: Duration,
    probes: Probes,
    until: Option<Instant>,
}

impl WaitTracer {
    /// Attaches them once, to know whether the kernel takes them.
    pub(super) fn new(planned: &[PlannedProbe], settings: &Settings, object: &mut Object) -> Self {
        let planned = planned.iter().map(|planned| match settings.trace_when {
            TraceWhen::Never => PlannedProbe::impossible(planned.probe, &switched_off()),
            TraceWhen::Slow | TraceWhen::Always => planned.clone(),
        });
        let planned: Vec<_> = planned.collect();
        let mut trace = Self {
            when: settings.trace_when,
            lasts: settings.trace_linger,
            probes: Probes::of(&planned, &settings.hooks),
            until: None,
        };
        trace.begin(object);
        if trace.when != TraceWhen::Always {
            trace.end();
        }
        trace
    }

    pub(super) fn is_on(&self) -> bool {
        self.probes.is_attached()
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
        wanted && self.probes.can_attach()
    }

    pub(super) fn begin(&mut self, object: &mut Object) {
        self.probes.attach(object);
    }

    pub(super) fn end(&mut self) {
        self.probes.detach();
    }

    pub(super) fn reports(&self) -> &[ProbeReport] {
        self.probes.reports()
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probes.stats()
    }
}

fn switched_off() -> Missing {
    Missing {
        what: "tracing of waits".to_owned(),
        why: "the configuration's `trace_when` is \"never\"".to_owned(),
        remedy: "set it to \"slow\"".to_owned(),
    }
}
