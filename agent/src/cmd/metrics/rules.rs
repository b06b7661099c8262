//! The naming rules of Prometheus, held against every definition: those that
//! `promtool check metrics` knows, and those of its documentation.

use std::collections::HashSet;

use super::sections;
use crate::{
    ailments,
    model::{MetricDef, MetricKind},
};

/// Base units, and words for things that are counted.
const NOT_BASE_UNITS: [&str; 14] = [
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "ms",
    "ns",
    "us",
    "kilobytes",
    "kib",
    "percent",
    "jiffies",
    "bits",
];

fn all() -> Vec<MetricDef> {
    let mut ailments: Vec<_> = ailments::all()
        .iter()
        .map(|collector| collector.about())
        .collect();
    ailments.push(crate::collector::fake::collector().about());
    sections(&ailments)
        .iter()
        .flat_map(|section| section.metrics)
        .copied()
        .collect()
}

fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(word)
        && !name.contains("__")
}

#[test]
fn names_are_unique_lower_case_words_under_the_agents_prefix() {
    let mut seen = HashSet::new();
    for MetricDef { name, .. } in all() {
        assert!(is_name(name), "{name}");
        assert!(
            name.starts_with("nodemedic_") || name.starts_with("process_"),
            "{name}"
        );
        assert!(seen.insert(name), "{name} twice");
    }
}

#[test]
fn counters_alone_end_in_total() {
    for MetricDef { name, kind, .. } in all() {
        assert_eq!(
            name.ends_with("_total"),
            kind == MetricKind::Counter,
            "{name}"
        );
    }
}

#[test]
fn units_are_base_units() {
    for MetricDef { name, .. } in all() {
        for word in name.split('_') {
            assert!(!NOT_BASE_UNITS.contains(&word), "{name}: {word}");
        }
    }
}

#[test]
fn help_is_a_sentence() {
    for MetricDef { name, help, .. } in all() {
        assert!(
            help.ends_with('.') && !help.contains('\n'),
            "{name}: {help}"
        );
    }
}

/// Prometheus makes names with these endings itself.
#[test]
fn no_name_has_an_ending_of_a_histogram_or_the_name_of_its_kind() {
    for MetricDef { name, .. } in all() {
        for ending in ["_bucket", "_count", "_sum"] {
            assert!(!name.ends_with(ending), "{name}");
        }
        for kind in ["counter", "gauge", "histogram", "summary"] {
            assert!(!name.split('_').any(|word| word == kind), "{name}");
        }
    }
}

#[test]
fn an_info_is_a_gauge_with_labels() {
    for metric in all().iter().filter(|metric| metric.name.ends_with("_info")) {
        assert_eq!(metric.kind, MetricKind::Gauge, "{}", metric.name);
        assert!(!metric.labels.is_empty(), "{}", metric.name);
    }
}

#[test]
fn labels_are_names_that_nobody_else_sets() {
    for MetricDef { name, labels, .. } in all() {
        for label in labels {
            assert!(is_name(label), "{name}: {label}");
            assert!(
                !["le", "quantile", "job", "instance"].contains(label),
                "{name}: {label}"
            );
        }
        assert_eq!(
            labels.iter().collect::<HashSet<_>>().len(),
            labels.len(),
            "{name}"
        );
    }
}
