//! The hash table has few buckets for its entries: chains are long, and the kernel refuses those
//! that are too long.

use ebpf::udp_conntrack::Refusal;

use super::{FEW_BUCKETS, Reading, Settings, advice, clash, counted, culprits, refused_elsewhere};
use crate::{
    ailments::udp_conntrack::room::LONG_CHAIN,
    model::{Evidence, Finding, Party, Severity},
};

/// Connections were refused for the length of their chain, or all chains are long.
pub(super) fn few_buckets(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let length = reading.chain_length();
    let limit = f64::from(settings.few_buckets_chain_length);
    let own = reading.window_drops.chain_too_long.unwrap_or(0);
    let elsewhere = elsewhere(reading, length);
    let refused = own + elsewhere.iter().map(|(_, count)| count).sum::<u64>();
    let long = length.filter(|length| *length > limit);
    if refused == 0 && long.is_none() {
        return None;
    }
    let mut evidence: Vec<_> = counted("chaintoolong", own).into_iter().collect();
    evidence.extend(elsewhere.iter().map(|(_, count)| Evidence {
        metric:
            "nodemedic_conntrack_refused_total{reason=\"not_inserted\"} in the window".to_owned(),
        value: *count as f64,
        limit: Some(0.0),
    }));
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
        victims: victims(reading, own, &elsewhere),
        remedies: advice(reading),
        follows_load: false,
    })
}

/// The probe cannot tell chains that are too long from entries that were deleted before their
/// insertion, so the length of chains must explain it.
fn elsewhere(reading: &Reading, length: Option<f64>) -> Vec<(u32, u64)> {
    let limited = reading.window_drops.chain_too_long.is_some();
    if !limited || length.is_none_or(|length| length < LONG_CHAIN) {
        return Vec::new();
    }
    refused_elsewhere(reading, |refusals| refusals.not_inserted)
}

fn victims(reading: &Reading, own: u64, elsewhere: &[(u32, u64)]) -> Vec<Party> {
    if own == 0 && elsewhere.is_empty() {
        return vec![Party {
            who: "packets of all connections".to_owned(),
            share: "each look-up walks a long chain; none is dropped yet".to_owned(),
        }];
    }
    let flows = clash::flows(reading, Refusal::NotInserted);
    if !flows.is_empty() {
        return flows;
    }
    let own = std::iter::once((reading.netns, own)).filter(|(_, count)| *count > 0);
    own.chain(elsewhere.iter().copied())
        .map(|(netns, count)| Party {
            who: format!(
                "new connections in network namespace {}",
                reading.neighbours.netns(netns)
            ),
            share: format!("{count} refused"),
        })
        .collect()
}
