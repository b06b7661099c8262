//! The hash table has few buckets for its entries: chains are long, and the kernel refuses those
//! that are too long.

use ebpf::udp_conntrack::Refusal;

use super::{FEW_BUCKETS, Reading, Settings, advice, culprits, refused::Refused};
use crate::{
    ailments::udp_conntrack::room::LONG_CHAIN,
    model::{Evidence, Finding, Party, Severity},
};

/// Connections were refused for the length of their chain, or all chains are long.
pub(super) fn few_buckets(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let length = reading.chain_length();
    let limit = f64::from(settings.few_buckets_chain_length);
    let refusals = refusals(reading, length);
    let refused = refusals.total();
    let long = length.filter(|length| *length > limit);
    if refused == 0 && long.is_none() {
        return None;
    }
    let mut evidence = refusals.evidence("chaintoolong");
    evidence.extend(length.map(|length| Evidence {
        metric: "2 * sum(nodemedic_conntrack_entries) / nodemedic_conntrack_buckets".to_owned(),
        value: length,
        limit: Some(limit),
    }));
    let chains = length.map_or_else(String::new, |length| {
        format!(
            "{} entries in {} buckets, {length:.0} to a chain",
            reading.entries_of_all(),
            reading.buckets.unwrap_or_default()
        )
    });
    let (severity, summary) = match refused {
        0 => (
            Severity::Warning,
            format!("hash chains of the connection tracking table are long: {chains}"),
        ),
        refused => (
            Severity::Critical,
            format!(
                "hash chains of the connection tracking table are too long: the kernel refused \
                 {refused} new connections ({chains})"
            ),
        ),
    };
    Some(Finding {
        kind: FEW_BUCKETS.to_owned(),
        severity,
        summary,
        evidence,
        culprits: culprits(reading),
        victims: victims(reading, &refusals),
        remedies: advice(reading),
        follows_load: false,
    })
}

/// The probe cannot tell chains that are too long from entries that were deleted before their
/// insertion, so the length of chains must explain it.
fn refusals(reading: &Reading, length: Option<f64>) -> Refused {
    let counter = reading.window_drops.refused_by_length();
    let mut refused = Refused::of(reading, Refusal::NotInserted, Some(counter.unwrap_or(0)));
    if counter.is_none() || length.is_none_or(|length| length < LONG_CHAIN) {
        refused.elsewhere.clear();
    }
    refused
}

fn victims(reading: &Reading, refusals: &Refused) -> Vec<Party> {
    if refusals.total() == 0 {
        return vec![Party {
            who: "packets of all connections".to_owned(),
            share: "each look-up walks a long chain; none is dropped yet".to_owned(),
        }];
    }
    refusals.by_flow(reading, |count| format!("{count} refused"))
}
