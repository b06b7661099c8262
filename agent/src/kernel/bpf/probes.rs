//! Probes of one object that are attached, held, reported and detached together.

use std::fmt;

use super::{Attached, Hook, Object, PlannedProbe, ProbeLog, log_of};
use crate::{
    kernel::modules::Held,
    model::{Missing, ProbeReport, ProgramStats},
};

/// Probes of one object, attached or not.
pub struct Probes {
    planned: Vec<PlannedProbe>,
    /// The module that has their functions; attached programs keep it from being unloaded.
    module: Option<&'static str>,
    programs: Programs,
    reports: Vec<ProbeReport>,
    /// Of the programs, when they were detached last.
    stats: Vec<ProgramStats>,
}

enum Programs {
    OfImage(Vec<Attached>),
    OfModule(Held<Vec<Attached>>),
}

impl fmt::Debug for Probes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Probes")
            .field("reports", &self.reports)
            .finish_non_exhaustive()
    }
}

impl Probes {
    /// Probes of the kernel image, in the order of attaching, with the hooks that the operator
    /// wants. None is attached yet.
    pub fn of<'p>(planned: impl IntoIterator<Item = &'p PlannedProbe>, hooks: &[Hook]) -> Self {
        let planned = planned.into_iter();
        let planned: Vec<_> = planned.map(|it| it.clone().with_hooks(hooks)).collect();
        let reports = planned.iter().map(|it| it.report(None, Vec::new()));
        Self {
            reports: reports.collect(),
            planned,
            module: None,
            programs: Programs::OfImage(Vec::new()),
            stats: Vec::new(),
        }
    }

    /// The same on functions of a module.
    #[must_use]
    pub fn of_module(self, module: &'static str) -> Self {
        Self {
            module: Some(module),
            ..self
        }
    }

    /// Whether there is a hook to try, for any of them.
    pub fn can_attach(&self) -> bool {
        self.planned.iter().any(|it| !it.candidates.is_empty())
    }

    /// Whether there is a hook to try for this one.
    pub fn can_attach_probe(&self, name: &str) -> bool {
        let mut planned = self.planned.iter();
        planned.any(|it| it.probe.name == name && !it.candidates.is_empty())
    }

    /// Attaches each by the first hook that the kernel takes.
    pub fn attach(&mut self, object: &mut Object) {
        let (planned, reports) = (&self.planned, &mut self.reports);
        let mut attach = || {
            let (attached, attempts) = planned.iter().map(|it| object.attach(it)).unzip();
            *reports = attempts;
            attached
        };
        self.programs = match self.module {
            None => Programs::OfImage(attach()),
            Some(module) => {
                let mut each = planned.iter().map(|it| &it.programs_hold_modules);
                let each = each.find_map(|it| it.known().copied());
                Programs::OfModule(Held::hold(module, each, attach, |it| traced(it)))
            }
        };
    }

    /// Detaches all. The reports go on to tell by which hooks they were attached.
    pub fn detach(&mut self) {
        self.stats = self.stats();
        self.programs = Programs::OfImage(Vec::new());
    }

    /// Detaches all, and reports of those that were attached why they are not any more.
    pub fn withdraw(&mut self, why: &Missing) {
        self.detach();
        for report in &mut self.reports {
            if report.hook.take().is_some() {
                report.missing.push(why.clone());
            }
        }
    }

    /// Reports of each, before it is attached, why it is not yet.
    pub fn postpone(&mut self, why: &Missing) {
        let reports = self.planned.iter();
        let reports = reports.map(|it| it.report(None, vec![why.clone()]));
        self.reports = reports.collect();
    }

    /// Reports of each, before it is attached, the hook that will be tried first.
    pub fn expect(&mut self) {
        let first = |it: &PlannedProbe| it.candidates.first().map(|candidate| candidate.hook);
        let reports = self.planned.iter();
        let reports = reports.map(|it| it.report(first(it), Vec::new()));
        self.reports = reports.collect();
    }

    /// Whether any program is attached.
    pub fn is_attached(&self) -> bool {
        self.programs().iter().any(|it| !it.is_empty())
    }

    /// Whether this probe has a hook.
    pub fn has(&self, name: &str) -> bool {
        let mut reports = self.reports.iter();
        reports.any(|report| report.name == name && report.hook.is_some())
    }

    /// A row of the table of probes for each.
    pub fn reports(&self) -> &[ProbeReport] {
        &self.reports
    }

    /// Whether they keep the module from being unloaded, and nobody else does.
    pub fn alone(&self) -> bool {
        match &self.programs {
            Programs::OfModule(held) => held.alone(),
            Programs::OfImage(_) => false,
        }
    }

    /// Run statistics of the programs, which must not fall while they are detached.
    pub fn stats(&self) -> Vec<ProgramStats> {
        if self.is_attached() {
            self.programs().iter().flat_map(Attached::stats).collect()
        } else {
            self.stats.clone()
        }
    }

    /// The log records that the programs write, as [`log_of`].
    pub fn log(&self) -> Option<ProbeLog> {
        log_of(self.programs())
    }

    fn programs(&self) -> &[Attached] {
        match &self.programs {
            Programs::OfImage(programs) => programs,
            Programs::OfModule(held) => held,
        }
    }
}

fn traced(programs: &[Attached]) -> Vec<&'static str> {
    programs.iter().flat_map(Attached::traced).collect()
}
