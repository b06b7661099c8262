//! What the agent takes beside few of what it looks at, and beside very many.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::bench::figures::AtSize;
use nodemedic_tests::usage;
use serde_json::Value;

use super::agent::Agent;

/// A reading in 5 s, as it comes, and some of what is looked at less often.
pub(super) const WATCHED: Duration = Duration::from_secs(120);

/// Often enough to miss no reading.
const LOOK: Duration = Duration::from_secs(2);

/// Watches it, and asks it to end. `ailments` is how the names of those begin that look at them.
pub(super) fn at(agent: Agent, size: u32, ailments: &str) -> Result<AtSize> {
    let mut readings = Vec::new();
    let cpu = usage::cpu_share(agent.id(), || watch(&agent, ailments, &mut readings))?;
    let memory = usage::memory(agent.id())?;
    let page = agent.scrape()?;
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    agent.stop()?;
    Ok(AtSize {
        size,
        readings,
        cpu,
        memory,
        series,
    })
}

/// How long each reading of the ailments took, all of them together.
fn watch(agent: &Agent, ailments: &str, readings: &mut Vec<f64>) -> Result<()> {
    let mut last = None;
    for _ in 0..WATCHED.as_secs() / LOOK.as_secs() {
        sleep(LOOK);
        let report = agent.whole_report()?;
        let when = report["unix_seconds"].as_f64();
        if when != last {
            last = when;
            readings.push(seconds(&report, ailments)?);
        }
    }
    Ok(())
}

fn seconds(report: &Value, ailments: &str) -> Result<f64> {
    let all = report["ailments"].as_array().into_iter().flatten();
    let these = all.filter(|ailment| {
        let name = ailment["name"].as_str();
        name.is_some_and(|name| name.starts_with(ailments))
    });
    let seconds = these.map(|ailment| ailment["measure_seconds"].as_f64());
    seconds.sum::<Option<f64>>().context("no measure_seconds")
}
