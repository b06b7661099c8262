//! What the person sees: when the agent is up, and then every few seconds what it sees itself,
//! taken from its own pages.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::tell;
use crate::http;
use crate::metrics::Metrics;

const PAUSE: Duration = Duration::from_secs(5);

/// While the guest boots there is nobody to answer.
const RETRY: Duration = Duration::from_millis(500);

/// Never ends.
pub(super) fn run(pages: SocketAddr, ailment: &str) {
    let begin = Instant::now();
    while summary(pages, ailment).is_err() {
        sleep(RETRY);
    }
    tell(&guide(pages, ailment));
    loop {
        let line = summary(pages, ailment).unwrap_or_else(|error| format!("no reading: {error:#}"));
        tell(&format!("{:4} s  {line}", begin.elapsed().as_secs()));
        sleep(PAUSE);
    }
}

fn guide(pages: SocketAddr, ailment: &str) -> String {
    format!(
        "
The agent is up. What it sees:
  http://{pages}/          for people
  http://{pages}/metrics   for Prometheus
  http://{pages}/report    all of it, as JSON

For instance, in another terminal:
  curl -s http://{pages}/metrics | grep {ailment}
  curl -s http://{pages}/report | target/release/nodemedic check --from /dev/stdin
"
    )
}

fn summary(pages: SocketAddr, ailment: &str) -> Result<String> {
    let report = serde_json::from_str(&http::get(pages, "/report")?).context("read /report")?;
    let metrics = Metrics::parse(&http::get(pages, "/metrics")?)?;
    line(ailment, &report, &metrics)
}

/// Figures and verdict in a line; an error while there is no reading.
fn line(name: &str, report: &Value, metrics: &Metrics) -> Result<String> {
    let mut ailments = report["ailments"].as_array().into_iter().flatten();
    let ailment = ailments
        .find(|ailment| ailment["name"] == name)
        .with_context(|| format!("the report has no {name}"))?;
    let reading = &ailment["reading"];
    if reading.is_null() {
        bail!("there is none yet");
    }
    let figures = match name {
        "ipvs_estimation" => estimation(metrics),
        "ipvs_conn_reuse" => reuse(metrics),
        _ => conntrack(reading)?,
    };
    Ok(format!("{figures}, {}", verdict(ailment)))
}

fn conntrack(reading: &Value) -> Result<String> {
    let number = |pointer: &str| {
        let value = reading.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("no {pointer} in {reading}"))
    };
    let per_second = number("/probed/window/created")? / number("/window_seconds")?;
    Ok(format!(
        "{} of {} entries, {per_second:.0} UDP entries/s made",
        number("/entries")?,
        number("/limit")?,
    ))
}

fn estimation(metrics: &Metrics) -> String {
    format!(
        "{} estimators, passes: {}, packets waited: {}",
        metrics.sum("nodemedic_ipvs_estimation_estimators", &[]),
        durations(metrics, "nodemedic_ipvs_estimation_duration_seconds"),
        durations(metrics, "nodemedic_ipvs_estimation_rx_wait_seconds"),
    )
}

fn reuse(metrics: &Metrics) -> String {
    let outcomes = [
        "rescheduled",
        "dropped",
        "dropped_silently",
        "stale_destination",
    ];
    let counts = outcomes.map(|outcome| {
        let name = "nodemedic_ipvs_conn_reuse_syns_total";
        let count = metrics.sum(name, &[("outcome", outcome)]);
        format!("{count} {}", outcome.replace('_', " "))
    });
    format!(
        "SYNs: {}; clients waited: {}",
        counts.join(", "),
        durations(metrics, "nodemedic_ipvs_conn_reuse_delay_seconds")
    )
}

/// Of a histogram: how many, and how long on average.
fn durations(metrics: &Metrics, name: &str) -> String {
    let part = |part| metrics.sum(&format!("{name}_{part}"), &[]);
    match part("count") {
        0.0 => "none".to_owned(),
        count => format!(
            "{count} of {:.1} ms on average",
            part("sum") / count * 1_000.0
        ),
    }
}

/// `warning: filling, wasteful`
fn verdict(ailment: &Value) -> String {
    let findings = ailment["findings"].as_array().into_iter().flatten();
    let kinds = findings.filter_map(|finding| finding["kind"].as_str());
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    let verdict = ailment["verdict"].as_str().unwrap_or_default();
    match kinds.as_str() {
        "" => verdict.to_owned(),
        kinds => format!("{verdict}: {kinds}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(findings: Value) -> Value {
        json!({"ailments": [{"name": "other"}, {
            "name": "udp_conntrack",
            "verdict": "warning",
            "findings": findings,
            "reading": {
                "window_seconds": 5.0,
                "entries": 1200,
                "limit": 8192,
                "probed": {"window": {"created": 1000}},
            },
        }]})
    }

    fn line_of(report: &Value, page: &str) -> Result<String> {
        let name = report["ailments"][1]["name"].as_str().unwrap();
        line(name, report, &Metrics::parse(page).unwrap())
    }

    #[test]
    fn a_report_becomes_a_line() {
        let findings = json!([{"kind": "table_filling"}, {"kind": "idle_entries"}]);
        assert_eq!(
            line_of(&report(findings), "").unwrap(),
            "1200 of 8192 entries, 200 UDP entries/s made, warning: table_filling, idle_entries"
        );
        let line = line_of(&report(json!([])), "").unwrap();
        assert!(line.ends_with("made, warning"), "{line}");
    }

    #[test]
    fn figures_of_ipvs_come_from_the_metrics() {
        let mut report = report(json!([]));
        report["ailments"][1]["name"] = json!("ipvs_conn_reuse");
        let page = "nodemedic_ipvs_conn_reuse_syns_total{outcome=\"dropped\",reason=\"weight\"} 2\n\
             nodemedic_ipvs_conn_reuse_syns_total{outcome=\"dropped\",reason=\"gone\"} 1\n\
             nodemedic_ipvs_conn_reuse_delay_seconds_count 2\n\
             nodemedic_ipvs_conn_reuse_delay_seconds_sum 2.1\n";
        assert_eq!(
            line_of(&report, page).unwrap(),
            "SYNs: 0 rescheduled, 3 dropped, 0 dropped silently, 0 stale destination; \
             clients waited: 2 of 1050.0 ms on average, warning"
        );
        report["ailments"][1]["name"] = json!("ipvs_estimation");
        let line = line_of(&report, page).unwrap();
        assert!(line.starts_with("0 estimators, passes: none"), "{line}");
    }

    #[test]
    fn without_a_reading_there_is_no_line() {
        let mut report = report(json!([]));
        report["ailments"][1]["reading"] = Value::Null;
        assert!(line_of(&report, "").is_err());
    }
}
