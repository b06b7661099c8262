//! Two packets want an equal entry at once, and the later one is dropped.

use ebpf::udp_conntrack::Refusal;

use super::{CLASH, Reading, per_second, refused::Refused};
use crate::{
    ailments::udp_conntrack::advice,
    model::{Finding, Severity},
};

/// Packets were lost. Those that went on with the other packet's entry harm nobody.
pub(super) fn clash(reading: &Reading) -> Option<Finding> {
    let refused = Refused::of(reading, Refusal::ClashLost, counted_as_lost(reading));
    let lost = refused.total();
    if lost == 0 {
        return None;
    }
    let rate = per_second(reading, lost);
    Some(Finding {
        kind: CLASH.to_owned(),
        // A sender that loses a packet sends it again: TCP after 1 s, a resolver after 5 s.
        severity: Severity::Warning,
        summary: format!(
            "{rate:.1} packets a second are lost in a race: another packet had inserted an equal \
             entry into the connection tracking table ({lost} in {:.0} s)",
            reading.window_seconds
        ),
        evidence: refused.evidence("insert_failed"),
        culprits: Vec::new(),
        victims: refused.by_flow(reading, |count| {
            format!("{count} packets lost; no probe knows their source")
        }),
        remedies: advice::against_clashes(reading),
        follows_load: false,
    })
}

/// By the kernel's counters. Without `drop` a failed insertion may have lost no packet.
fn counted_as_lost(reading: &Reading) -> Option<u64> {
    let drops = &reading.window_drops;
    Some(drops.clash_lost()?.min(drops.drop?))
}
