//! The reference of the metrics.

use super::wrap;
use crate::metrics::{Kind, MetricDef, Section};

const WIDTH: usize = 80;

/// The metrics for a terminal: name and kind, then what it is.
pub fn metrics_as_text(sections: &[Section]) -> String {
    let mut text = String::new();
    for Section {
        name,
        about,
        metrics,
    } in sections
    {
        text.push_str(&format!("{name}: {about}\n\n"));
        for metric in *metrics {
            text.push_str(&format!(
                "  {} ({})\n",
                with_labels(metric),
                kind(metric.kind)
            ));
            for line in wrap(metric.help, WIDTH - 6) {
                text.push_str(&format!("      {line}\n"));
            }
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The metrics as the page of the documentation.
pub fn metrics_as_markdown(sections: &[Section]) -> String {
    let mut text = String::new();
    for (
        i,
        Section {
            name,
            about,
            metrics,
        },
    ) in sections.iter().enumerate()
    {
        if i > 0 {
            text.push('\n');
        }
        text.push_str(&format!("## {name}\n\nThis is {about}.\n\n"));
        text.push_str("| Metric | Kind | Labels | What it is |\n|---|---|---|---|\n");
        for MetricDef {
            name,
            kind: it,
            help,
            labels,
        } in *metrics
        {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (kind, labels) = (kind(*it), labels.join(", "));
            text.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
        }
    }
    text
}

fn with_labels(MetricDef { name, labels, .. }: &MetricDef) -> String {
    if labels.is_empty() {
        (*name).to_owned()
    } else {
        format!("{name}{{{}}}", labels.join(", "))
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ailments::sham, metrics::sections};

    #[test]
    fn every_metric_is_in_both_forms() {
        let sections = sections(&[sham::ward().about()]);
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
        let page = metrics_as_markdown(&sections(&[sham::ward().about()]));
        for line in page.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.matches('|').count(), 5, "{line}");
        }
    }
}
