//! The kinds of finding, worst first.

use super::judge::{AT_RISK, ESTIMATOR_CPU, ESTIMATOR_STALL};
use crate::model::FindingKind;

pub(super) const FINDINGS: &[FindingKind] = &[
    FindingKind {
        kind: ESTIMATOR_STALL,
        severity: "critical",
        numbers: "a pass took slow_threshold or longer in the last 10 s, and packets or tasks waited as long in the last minute, by probes",
        not: "a slow softirq of something else: the wait is counted only inside of a pass",
    },
    FindingKind {
        kind: AT_RISK,
        severity: "a warning",
        numbers: "a pass took slow_threshold or longer, or estimators x possible CPUs x the cost of a visit predict it, and no wait is known",
        not: "threads of Linux 6.2 and later, which yield; a pass that is switched off with run_estimation",
    },
    FindingKind {
        kind: ESTIMATOR_CPU,
        severity: "a warning",
        numbers: "the threads of the estimator take more than estimator_cpu_ratio of one CPU from other tasks, by /proc/PID/schedstat",
        not: "threads at nice 19, which take their time from no other task and are a note",
    },
];
