//! The reference of the metrics.

use super::fill;
use crate::{
    model::Section,
    model::{MetricDef, MetricKind},
};

const WIDTH: usize = 80;

/// The metrics for a terminal: name and kind, then what it is.
pub fn metrics_as_text(sections: &[Section]) -> String {
    let mut text = String::new();
    for (i, section) in sections.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        text.push_str(&format!("{}: {}\n\n", section.name, section.about));
        for metric in section.metrics {
            let (name, kind) = (with_labels(metric), kind(metric.kind));
            text.push_str(&format!("  {name} ({kind})\n"));
            text.push_str(&fill(metric.help, WIDTH, "      ", "      "));
        }
    }
    text
}

/// The metrics as the page of the documentation.
pub fn metrics_as_markdown(sections: &[Section]) -> String {
    let mut text = String::new();
    for (i, section) in sections.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        let about = sentence(section.about);
        text.push_str(&format!("## {}\n\n{about}\n\n", section.name));
        text.push_str("| Metric | MetricKind | Labels | What it is |\n|---|---|---|---|\n");
        section
            .metrics
            .iter()
            .for_each(|metric| text.push_str(&row(metric)));
    }
    text
}

fn row(metric: &MetricDef) -> String {
    let labels = metric.labels.iter().map(|label| format!("`{label}`"));
    let labels = labels.collect::<Vec<_>>().join(", ");
    let (name, kind, help) = (metric.name, kind(metric.kind), metric.help);
    format!("| `{name}` | {kind} | {labels} | {help} |\n")
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    let capital: String = first.into_iter().flatten().collect();
    format!("{capital}{}.", characters.as_str())
}

fn with_labels(MetricDef { name, labels, .. }: &MetricDef) -> String {
    if labels.is_empty() {
        (*name).to_owned()
    } else {
        format!("{name}{{{}}}", labels.join(", "))
    }
}

fn kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collector::fake, metrics::of_reports};

    #[test]
    fn every_metric_is_in_both_forms() {
        let sections = of_reports(&[fake::collector().about()]);
        let (text, markdown) = (metrics_as_text(&sections), metrics_as_markdown(&sections));
        for metric in sections.iter().flat_map(|section| section.metrics) {
            assert!(text.contains(&format!("  {}", metric.name)), "{text}");
            assert!(
                markdown.contains(&format!("| `{}` |", metric.name)),
                "{markdown}"
            );
        }
    }

    #[test]
    fn a_row_of_the_page_has_four_cells() {
        let page = metrics_as_markdown(&of_reports(&[fake::collector().about()]));
        for line in page.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.matches('|').count(), 5, "{line}");
        }
    }
}
