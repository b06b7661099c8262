//! The verdict: a pure function of a reading and the limits.

use super::{Reading, Settings, advice::advice};
use crate::model::{Evidence, Finding, FindingKind, Party, Severity};

/// The kinds of finding, worst first.
pub(super) const KINDS: &[FindingKind] = &[FindingKind {
    kind: BACKLOG_FULL,
    severity: "critical",
    numbers: "listeners dropped min_drops connection requests in the window, or more",
    not: "a slow server that accepts every connection",
}];
pub(super) const BACKLOG_FULL: &str = "backlog_full";

/// Parties that a finding names.
const NAMED: usize = 5;

/// What is wrong, worst first.
pub(super) fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
    let drops = reading.drops();
    if drops < u64::from(settings.min_drops) {
        return Vec::new();
    }
    let listeners = reading.probed.iter().flat_map(|probed| &probed.top);
    let culprits = listeners.take(NAMED).map(|listener| Party {
        who: format!(
            "the process that listens on port {} in network namespace {}",
            listener.port, listener.netns
        ),
        share: format!("{} connection requests dropped", listener.drops),
    });
    vec![Finding {
        kind: BACKLOG_FULL.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "full listeners dropped {drops} connection requests; their clients repeat them after \
             1 s"
        ),
        evidence: vec![Evidence {
            metric: "nodemedic_listen_overflow_drops_total in the window".to_owned(),
            value: drops as f64,
            limit: Some(f64::from(settings.min_drops)),
        }],
        culprits: culprits.collect(),
        victims: vec![Party {
            who: "clients of these listeners".to_owned(),
            share: format!("{drops} connection requests repeated"),
        }],
        remedies: advice(),
        follows_load: true,
    }]
}
