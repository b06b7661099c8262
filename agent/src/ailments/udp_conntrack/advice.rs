//! What a person can do against it, beside the treatments.

use super::measure::Reading;

/// Advice for a table that fills or is full of idle entries.
pub(super) fn advice(reading: &Reading) -> Vec<String> {
    let dns = reading.dns_dominates().then(|| {
        "answer DNS on the node (NodeLocal DNSCache): the queries of its pods then need no entry"
            .to_owned()
    });
    dns.into_iter().collect()
}
