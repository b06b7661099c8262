//! What the person sees: when the agent is up, and then every few seconds what it sees itself,
//! taken from its own report.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::tell;
use crate::http;

const PAUSE: Duration = Duration::from_secs(5);

/// While the guest boots there is nobody to answer.
const RETRY: Duration = Duration::from_millis(500);

/// Never ends.
pub(super) fn run(pages: SocketAddr) {
    let begin = Instant::now();
    while summary(pages).is_err() {
        sleep(RETRY);
    }
    tell(&guide(pages));
    loop {
        let line = summary(pages).unwrap_or_else(|error| format!("no reading: {error:#}"));
        tell(&format!("{:4} s  {line}", begin.elapsed().as_secs()));
        sleep(PAUSE);
    }
}

fn guide(pages: SocketAddr) -> String {
    format!(
        "
The agent is up. What it sees:
  http://{pages}/          for people
  http://{pages}/metrics   for Prometheus
  http://{pages}/report    all of it, as JSON

For instance, in another terminal:
  curl -s http://{pages}/metrics | grep udp_conntrack
  curl -s http://{pages}/report | target/release/nodemedic check --from /dev/stdin
"
    )
}

fn summary(pages: SocketAddr) -> Result<String> {
    let report = http::get(pages, "/report")?;
    let report = serde_json::from_str(&report).context("read /report")?;
    line(&report)
}

/// The last reading of `udp_conntrack` in a line; an error while there is none.
fn line(report: &Value) -> Result<String> {
    let ailment = &report["ailments"][0];
    let reading = &ailment["reading"];
    let number = |pointer: &str| {
        let value = reading.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("no {pointer} in {reading}"))
    };
    let per_second = number("/probed/window/created")? / number("/window_seconds")?;
    Ok(format!(
        "{} of {} entries, {per_second:.0} UDP entries/s made, {}",
        number("/entries")?,
        number("/limit")?,
        verdict(ailment)
    ))
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
        json!({"ailments": [{
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

    #[test]
    fn a_report_becomes_a_line() {
        let findings = json!([{"kind": "filling"}, {"kind": "wasteful"}]);
        assert_eq!(
            line(&report(findings)).unwrap(),
            "1200 of 8192 entries, 200 UDP entries/s made, warning: filling, wasteful"
        );
        let line = line(&report(json!([]))).unwrap();
        assert!(line.ends_with("made, warning"), "{line}");
    }

    #[test]
    fn without_a_reading_there_is_no_line() {
        let report = json!({"ailments": [{"verdict": "unknown", "reading": null}]});
        assert!(line(&report).is_err());
    }
}
