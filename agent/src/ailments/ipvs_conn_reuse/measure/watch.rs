//! Watching the packet hook, which is dear, only while there is something to see.

use std::time::{Duration, Instant};

use super::NamespaceReading;
use crate::{
    ailments::ipvs_conn_reuse::support::MODULE,
    kernel::{
        bpf::{Attached, Object, PlannedProbe},
        modules::Held,
    },
    report::{ProbeReport, ProgramStats},
};

/// The longest that IPVS keeps an idle TCP connection by default (`tcp_timeouts`,
/// ip_vs_proto_tcp.c), so that it can lead to a destination that is gone.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The probe that is attached while it can see something.
#[derive(Debug)]
pub(super) struct Watch {
    plan: PlannedProbe,
    attached: Option<Held<Vec<Attached>>>,
    report: ProbeReport,
    /// When a destination may last have been removed: what was before we came is not
    /// known.
    removed: Instant,
    /// Destinations of all namespaces at the last look.
    destinations: u64,
}

impl Watch {
    pub(super) fn new(plan: PlannedProbe) -> Self {
        let hook = plan.candidates.first().map(|candidate| candidate.hook);
        Self {
            report: plan.report(hook, Vec::new()),
            plan,
            attached: None,
            removed: Instant::now(),
            destinations: 0,
        }
    }

    pub(super) fn report(&self) -> &ProbeReport {
        &self.report
    }

    pub(super) fn is_on(&self) -> bool {
        self.attached.is_some()
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = ProgramStats> {
        let attached = self.attached.iter().flat_map(|held| held.iter());
        attached.flat_map(Attached::stats)
    }

    /// Attaches or detaches, whichever the state of the node asks for.
    pub(super) fn follow(&mut self, object: &mut Object, namespaces: &[NamespaceReading]) {
        let destinations = namespaces
            .iter()
            .map(|namespace| namespace.census.destinations)
            .sum();
        if destinations < self.destinations {
            self.removed = Instant::now();
        }
        self.destinations = destinations;
        let removed = self.removed.elapsed() < CONNECTION_LIFETIME;
        let wanted = namespaces
            .iter()
            .any(|namespace| keeps_connections(namespace, removed));
        match (wanted, self.is_on()) {
            (true, false) => self.attach(object),
            (false, true) => self.attached = None,
            (true, true) | (false, false) => {}
        }
    }

    fn attach(&mut self, object: &mut Object) {
        if self.plan.candidates.is_empty() {
            return;
        }
        let mut report = None;
        let held = Held::hold(MODULE, || {
            let (attached, attach_report) = object.attach(&self.plan);
            report = Some(attach_report);
            vec![attached]
        });
        if let Some(report) = report {
            self.attached = report.hook.is_some().then_some(held);
            self.report = report;
        }
    }
}

/// Whether IPVS may keep sending SYNs to a destination of this namespace that is
/// drained, or drop them because it is gone. Where it is told to let go of such
/// connections every SYN makes a call that is probed anyway.
fn keeps_connections(namespace: &NamespaceReading, removed: bool) -> bool {
    let told_to_let_go = namespace
        .settings
        .expire_nodest_conn
        .is_some_and(|on| on != 0);
    !told_to_let_go && (removed || namespace.census.drained > 0)
}
