//! Turns the last report into the families of a scrape. Nothing is measured here,
//! so a scrape costs the node nothing but its text.

use std::collections::BTreeMap;

use hyper::StatusCode;
use prometheus::{
    Registry, TEXT_FORMAT, TextEncoder,
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{agent, of_reports, process, treatment};
use crate::{
    http::{Answer, answer, failed},
    model::{About, MetricDef, MetricKind, MetricValue, Reports, Sample},
    node,
};

/// The page `/metrics`.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// The page of reports on these ailments.
    ///
    /// # Errors
    ///
    /// When two metrics have one name but another help or other labels.
    pub fn new(reports: Reports, ailments: Vec<About>) -> prometheus::Result<Self> {
        // A prefix would rename the process metrics, which all dashboards know.
        let registry = Registry::new();
        registry.register(Box::new(ReportCollector::new(reports, ailments)?))?;
        Ok(Self { registry })
    }

    /// The page of a process that has no reports.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn of_the_process() -> prometheus::Result<Self> {
        let page = Self {
            registry: Registry::new(),
        };
        page.with(&[agent::BUILD_INFO], || vec![agent::build_info()])?
            .with(process::METRICS, process::samples)
    }

    /// All metrics, in the text format.
    pub fn answer(&self) -> Answer {
        match self.text() {
            Ok(page) => answer(StatusCode::OK, TEXT_FORMAT, page),
            Err(error) => failed("/metrics", &error),
        }
    }

    /// The page with more on it.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with(
        self,
        metrics: &[MetricDef],
        samples: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) -> prometheus::Result<Self> {
        let descriptions = metrics.iter().map(describe).collect::<Result<_, _>>()?;
        let samples = Box::new(samples);
        self.registry.register(Box::new(Others {
            descriptions,
            samples,
        }))?;
        Ok(self)
    }

    /// The text of the page as it is now.
    ///
    /// # Errors
    ///
    /// When a family cannot be written.
    pub fn text(&self) -> prometheus::Result<String> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        Ok(with_infinity(&text))
    }
}

/// The exposition format spells it `+Inf`, the encoder prints a value as Rust does. What
/// ends a line after a space is a value: labels stand in quotes, and no help ends so.
fn with_infinity(text: &str) -> String {
    text.replace(" inf\n", " +Inf\n")
}

struct ReportCollector {
    reports: Reports,
    ailments: Vec<About>,
    descriptions: Vec<Desc>,
}

impl ReportCollector {
    fn new(reports: Reports, ailments: Vec<About>) -> prometheus::Result<Self> {
        let definitions = of_reports(&ailments)
            .into_iter()
            .flat_map(|section| section.metrics);
        let descriptions = definitions
            .map(describe)
            .collect::<prometheus::Result<_>>()?;
        Ok(Self {
            reports,
            ailments,
            descriptions,
        })
    }
}

impl Collector for ReportCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        families.add(&agent::build_info());
        process::samples()
            .iter()
            .for_each(|sample| families.add(sample));
        let last = self.reports.borrow().clone();
        if let Some(snapshot) = last {
            let report = &snapshot.report;
            let own = agent::samples(report, &self.ailments);
            own.iter().for_each(|sample| families.add(sample));
            let names = node::samples(report.names.as_ref());
            names.iter().for_each(|sample| families.add(sample));
            let treatments = treatment::samples(report, &self.ailments);
            treatments.iter().for_each(|sample| families.add(sample));
            let ailments = report.ailments.iter().flat_map(|ailment| &ailment.samples);
            ailments.for_each(|sample| families.add(sample));
        }
        families.0.into_values().collect()
    }
}

/// What somebody else tells.
struct Others {
    descriptions: Vec<Desc>,
    samples: Box<dyn Fn() -> Vec<Sample> + Send + Sync>,
}

impl Collector for Others {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        let samples = (self.samples)();
        samples.iter().for_each(|sample| families.add(sample));
        families.0.into_values().collect()
    }
}

/// Families by name.
#[derive(Default)]
struct Families(BTreeMap<&'static str, MetricFamily>);

impl Families {
    fn add(&mut self, sample: &Sample) {
        let family = self
            .0
            .entry(sample.metric.name)
            .or_insert_with(|| family(sample.metric));
        family.mut_metric().push(metric(sample));
    }
}

fn describe(definition: &MetricDef) -> prometheus::Result<Desc> {
    let labels = definition
        .labels
        .iter()
        .map(|label| (*label).to_owned())
        .collect();
    Desc::new(
        definition.name.to_owned(),
        definition.help.to_owned(),
        labels,
        Default::default(),
    )
}

fn family(definition: &MetricDef) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(definition.name.to_owned());
    family.set_help(definition.help.to_owned());
    family.set_field_type(match definition.kind {
        MetricKind::Counter => MetricType::COUNTER,
        MetricKind::Gauge => MetricType::GAUGE,
        MetricKind::Histogram => MetricType::HISTOGRAM,
    });
    family
}

fn metric(sample: &Sample) -> Metric {
    let names = sample.metric.labels.iter();
    let labels = names
        .zip(&sample.labels)
        .map(|(name, value)| label(name, value));
    let more = sample.more.iter().map(|(name, value)| label(name, value));
    let mut metric = Metric::from_label(labels.chain(more).collect());
    match &sample.value {
        MetricValue::Number(number) => match sample.metric.kind {
            MetricKind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(*number);
                metric.set_counter(counter);
            }
            MetricKind::Gauge | MetricKind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(*number);
                metric.set_gauge(gauge);
            }
        },
        MetricValue::Histogram {
            buckets,
            count,
            sum,
        } => {
            metric.set_histogram(histogram(buckets, *count, *sum));
        }
    }
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

/// The encoder adds the bucket `+Inf` from the count.
fn histogram(buckets: &[(f64, u64)], count: u64, sum: f64) -> Histogram {
    let bucket = |(bound, cumulative): &(f64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*cumulative);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.iter().map(bucket).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    histogram
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use tokio::sync::watch;

    use super::*;
    use crate::model::Snapshot;
    use crate::{collector::fake, identity::Identity};

    fn page() -> String {
        let report = Arc::new(Identity::fake().report(vec![fake::report(60)], 3));
        let snapshot = Snapshot {
            report,
            taken: Instant::now(),
        };
        let (_sender, reports) = watch::channel(Some(snapshot));
        Page::new(reports, vec![fake::collector().about()])
            .unwrap()
            .text()
            .unwrap()
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_up_to_infinity() {
        let lines = "\
# HELP nodemedic_fake_pause_seconds Time between two events, seconds.
# TYPE nodemedic_fake_pause_seconds histogram
nodemedic_fake_pause_seconds_bucket{le=\"0.5\"} 0
nodemedic_fake_pause_seconds_bucket{le=\"1\"} 60
nodemedic_fake_pause_seconds_bucket{le=\"+Inf\"} 61
nodemedic_fake_pause_seconds_sum 60
nodemedic_fake_pause_seconds_count 61
";
        assert!(page().contains(lines), "{}", page());
    }

    #[test]
    fn infinity_is_spelled_as_the_format_has_it() {
        let text = "a_seconds{of=\"an inf\"} inf\na_ratio 1\n";
        let wanted = "a_seconds{of=\"an inf\"} +Inf\na_ratio 1\n";
        assert_eq!(with_infinity(text), wanted);
    }

    #[test]
    fn the_value_of_a_label_may_be_any_text() {
        let line = r#"nodemedic_fake_events_total{source="right \"upper\"\\\n"} 60"#;
        assert!(page().contains(line), "{}", page());
    }

    #[test]
    fn known_label_values_are_there_from_the_start() {
        for line in [
            r#"nodemedic_ailment_findings{ailment="fake",kind="rate_high"} 0"#,
            r#"nodemedic_ailment_verdict{ailment="fake",verdict="critical"} 0"#,
            r#"nodemedic_ailment_errors_total{ailment="fake",stage="late"} 0"#,
            r#"nodemedic_ailment_probe_info{ailment="fake",probe="events",hook="fake_hook"} 1"#,
            r#"nodemedic_ailment_lost_events_total{ailment="fake",reason="skipped"} 2"#,
            r#"nodemedic_bpf_program_runs_total{ailment="fake",program="count_events"} 7"#,
            "nodemedic_series_dropped_total 3",
        ] {
            assert!(
                page().contains(&format!("\n{line}\n")),
                "{line}: {}",
                page()
            );
        }
    }
}
