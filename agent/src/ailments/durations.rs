//! Histograms of the kernel's maps, as readings and metrics have them.

use ebpf::shared::histogram::{Histogram, bound_ns};
use serde::{Deserialize, Serialize};

use crate::model::MetricValue;

/// A histogram with the buckets of the ABI.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// Counts by bucket, not cumulative.
    pub buckets: Vec<u64>,
    /// Sum, seconds.
    pub seconds: f64,
}

impl Durations {
    /// Those of all CPUs together.
    pub(super) fn of<'h, const N: usize>(per_cpu: impl Iterator<Item = &'h Histogram<N>>) -> Self {
        let mut buckets = vec![0; N];
        let mut ns = 0;
        for histogram in per_cpu {
            ns += histogram.sum_ns;
            for (sum, count) in buckets.iter_mut().zip(histogram.buckets) {
                *sum += count;
            }
        }
        Self {
            buckets,
            seconds: ns as f64 / 1e9,
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Cumulative, as Prometheus wants it. The last bucket of the ABI has no bound.
    pub(super) fn histogram(&self, unit_ns: u64) -> MetricValue {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(self.buckets.len());
        for (index, events) in self.buckets.iter().enumerate() {
            count += events;
            if index + 1 < self.buckets.len() {
                cumulative.push((bound_ns(index, unit_ns) as f64 / 1e9, count));
            }
        }
        MetricValue::Histogram {
            buckets: cumulative,
            count,
            sum: self.seconds,
        }
    }
}
