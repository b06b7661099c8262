//! Histograms of the kernel's maps, as readings and metrics have them.

use ebpf::shared::histogram::Histogram;
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
        MetricValue::of_durations(&self.buckets, unit_ns, self.seconds)
    }
}

/// A time in words, with the unit that fits it.
pub(super) fn seconds_as_text(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(
            [0.000_2, 0.0312, 1.26].map(seconds_as_text),
            ["200 µs", "31 ms", "1.3 s"]
        );
    }
}
