//! How long clients waited.

use ebpf::{ipvs_conn_reuse::DELAY_UNIT_NS, shared::histogram::bound_ns};

use crate::{ailments::ipvs_conn_reuse::measure::ProbedReading, model::Evidence};

/// The recent delays by the bounds of their buckets, and who waits still.
pub(super) fn evidence(probed: &ProbedReading) -> Vec<Evidence> {
    let buckets = &probed.recent.delays;
    let bounded = |index: Option<usize>| {
        index.map(|index| bound_ns(index.min(buckets.len() - 2), DELAY_UNIT_NS) as f64 / 1e9)
    };
    let longest = bounded(buckets.iter().rposition(|clients| *clients > 0));
    let rows = [
        (
            "median wait of the clients that connected, seconds",
            bounded(median(buckets)),
        ),
        (
            "longest wait of the clients that connected, seconds",
            longest,
        ),
        (
            "nodemedic_ipvs_conn_reuse_waiting",
            (probed.waiting > 0).then_some(probed.waiting as f64),
        ),
        (
            "longest wait of the clients that still wait, seconds",
            (probed.waiting > 0).then_some(probed.longest_wait_seconds),
        ),
        (
            "nodemedic_ipvs_conn_reuse_gave_up_total lately",
            (probed.recent.never_connected > 0).then_some(probed.recent.never_connected as f64),
        ),
    ];
    rows.into_iter()
        .filter_map(|(metric, value)| {
            Some(Evidence {
                metric: metric.to_owned(),
                value: value?,
                limit: None,
            })
        })
        .collect()
}

/// The bucket that the middle one of all values is in.
fn median(buckets: &[u64]) -> Option<usize> {
    let all: u64 = buckets.iter().sum();
    let mut below = 0;
    buckets.iter().position(|events| {
        below += events;
        below > 0 && below * 2 >= all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_bucket_of_the_middle_one() {
        assert_eq!(median(&[0, 0, 0]), None);
        assert_eq!(median(&[0, 3, 1]), Some(1));
        assert_eq!(median(&[1, 0, 3]), Some(2));
    }
}
