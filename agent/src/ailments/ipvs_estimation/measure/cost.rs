//! What one visit costs: one estimator for one possible CPU.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NamespaceReading;

/// Nanoseconds a visit before any was seen here.
const LITERATURE_NS: f64 = 51.5;

/// Where that is from.
pub(in super::super) const SOURCE: &str =
    "the kernel's mailing list: 268 ms for 50,000 services and 104 CPUs";

/// Below so many visits a pass costs more for itself than for what it visits.
const ENOUGH_VISITS: f64 = 1_000.0;

/// What an observation of the last tick still counts at the next.
const MEMORY: f64 = 0.9;

/// The cost of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Nanoseconds.
    pub ns: f64,
    /// Whether it was seen on this node, and not only read about.
    pub calibrated: bool,
}

/// What passes have cost lately.
#[derive(Debug, Default)]
pub(super) struct Calibration {
    ns: f64,
    visits: f64,
    /// Estimators of each namespace as of the observation before.
    before: BTreeMap<u32, u64>,
}

impl Calibration {
    /// Takes in what visits to a namespace took. A scan older than a change of the
    /// services would make them cheap or dear, so one that has just changed waits.
    pub(super) fn observe(&mut self, namespace: &NamespaceReading, ns: f64, visits: f64) {
        let now = namespace.estimators();
        let settled = self.before.insert(namespace.netns, now) == Some(now);
        if settled && ns > 0.0 && visits >= ENOUGH_VISITS {
            self.ns = self.ns * MEMORY + ns;
            self.visits = self.visits * MEMORY + visits;
        }
    }

    pub(super) fn cost(&self) -> Cost {
        if self.visits > 0.0 {
            Cost {
                ns: self.ns / self.visits,
                calibrated: true,
            }
        } else {
            Cost::LITERATURE
        }
    }
}

impl Cost {
    /// Before any pass was seen.
    pub const LITERATURE: Self = Self {
        ns: LITERATURE_NS,
        calibrated: false,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ipvs::Scan;

    fn namespace(services: u64) -> NamespaceReading {
        NamespaceReading {
            netns: 7,
            pid: 1,
            scan: Scan {
                services,
                complete: true,
                ..Scan::default()
            },
            counted: None,
            estimating: Some(true),
            est_nice: None,
        }
    }

    #[test]
    fn before_any_pass_the_literature_stands() {
        assert_eq!(Calibration::default().cost(), Cost::LITERATURE);
    }

    #[test]
    fn settled_passes_tell_what_a_visit_costs() {
        let mut calibration = Calibration::default();
        calibration.observe(&namespace(100), 9_000.0, 9_000.0);
        assert!(!calibration.cost().calibrated, "the scan has just changed");
        calibration.observe(&namespace(100), 900_000.0, 9_000.0);
        let cost = calibration.cost();
        assert_eq!((cost.ns, cost.calibrated), (100.0, true));
    }

    #[test]
    fn a_pass_over_next_to_nothing_tells_nothing() {
        let mut calibration = Calibration::default();
        for _ in 0..3 {
            calibration.observe(&namespace(1), 5_000.0, 16.0);
        }
        assert!(!calibration.cost().calibrated);
    }
}
