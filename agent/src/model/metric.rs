//! A metric as data: what `/metrics`, the reference page and the checks of the
//! dashboards are all made from.

use ebpf::shared::histogram::bound_ns;
use serde::Serialize;

/// The only place where a metric's name, kind, help and labels stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MetricDef {
    /// Full name, base unit included, `_total` for counters alone.
    pub name: &'static str,
    /// How it behaves over time.
    pub kind: MetricKind,
    /// What it is, in a sentence. The name says the unit.
    pub help: &'static str,
    /// Names of the labels, in the order of [`Sample::labels`].
    pub labels: &'static [&'static str],
}

/// Defines metrics, each in a row, and the list of them all. The doc comment is the help, which is
/// what a user reads of it.
macro_rules! metrics {
    (
        $(#[doc = $about:expr])*
        $visible:vis $all:ident:
        $(
            $(#[doc = $help:expr])+
            $own:vis $metric:ident: $kind:ident = $name:literal [$($label:literal),*];
        )+
    ) => {
        $(#[doc = $about])*
        $visible const $all: &[$crate::model::MetricDef] = &[$($metric),+];
        $(
            $(#[doc = $help])+
            $own const $metric: $crate::model::MetricDef = $crate::model::MetricDef {
                name: $name,
                kind: $crate::model::MetricKind::$kind,
                help: concat!($($help),+).trim_ascii_start(),
                labels: &[$($label),*],
            };
        )+
    };
}
pub(crate) use metrics;

/// The kinds of metric in use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricKind {
    /// Only rises while the agent runs.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Cumulative buckets with inclusive upper bounds.
    Histogram,
}

/// Metrics that belong together.
#[derive(Clone, Debug)]
pub struct Section {
    /// The ailment's name, or what part of the agent they are of.
    pub name: &'static str,
    /// What they tell: a sentence without its capital and its full stop.
    pub about: &'static str,
    /// Their definitions.
    pub metrics: &'static [MetricDef],
}

/// One series of a metric at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its definition.
    pub metric: &'static MetricDef,
    /// A value for each of [`MetricDef::labels`].
    pub labels: Vec<String>,
    /// Labels beside those, which the configuration names.
    pub more: Vec<(String, String)>,
    /// What was measured.
    pub value: MetricValue,
}

/// The value of a [`Sample`].
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Histogram {
        /// Upper bounds (inclusive) and the *cumulative* count up to each; the
        /// bucket `+Inf` is `count`.
        buckets: Vec<(f64, u64)>,
        /// All events.
        count: u64,
        /// Sum of all values, in the metric's unit.
        sum: f64,
    },
}

impl MetricValue {
    /// A histogram of the probes, in seconds: cumulative, as Prometheus wants it. The
    /// last bucket of the ABI has no bound.
    pub fn of_durations(buckets: &[u64], unit_ns: u64, sum: f64) -> Self {
        let mut count = 0;
        let mut cumulative = Vec::with_capacity(buckets.len());
        for (index, events) in buckets.iter().enumerate() {
            count += events;
            if index + 1 < buckets.len() {
                cumulative.push((bound_ns(index, unit_ns) as f64 / 1e9, count));
            }
        }
        Self::Histogram {
            buckets: cumulative,
            count,
            sum,
        }
    }
}

impl From<f64> for MetricValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl Sample {
    /// A value with its labels.
    pub fn number(
        metric: &'static MetricDef,
        labels: impl IntoIterator<Item = impl Into<String>>,
        value: impl Into<MetricValue>,
    ) -> Self {
        Self {
            metric,
            labels: labels.into_iter().map(Into::into).collect(),
            more: Vec::new(),
            value: value.into(),
        }
    }

    /// A value of a metric without labels.
    pub fn plain(metric: &'static MetricDef, value: impl Into<MetricValue>) -> Self {
        Self {
            metric,
            labels: Vec::new(),
            more: Vec::new(),
            value: value.into(),
        }
    }

    /// With labels beside those of the metric.
    pub fn with(self, more: Vec<(String, String)>) -> Self {
        Self { more, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_its_last_bucket_has_no_bound() {
        let value = MetricValue::of_durations(&[1, 0, 2, 4], 1_000_000_000, 100.0);
        let buckets = vec![(1.0, 1), (2.0, 1), (4.0, 3)];
        assert_eq!(
            value,
            MetricValue::Histogram {
                buckets,
                count: 7,
                sum: 100.0
            }
        );
    }
}
