//! A scan of a table as large as those of busy nodes, and that its limit holds.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::bench::figures::{OneScan, Scan};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::{enlarge_table, measured};

const ENTRIES: u32 = 260_000;
const FILE: &str = "/tmp/entries";

/// For what handles all of them one by one, under emulation.
const PATIENCE: Duration = Duration::from_secs(900);

/// The usual limit, and the longest.
const LIMITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

pub(crate) fn scans(guest: &Guest) -> Result<Verdict> {
    guest.modprobe("nf_conntrack_netlink")?;
    enlarge_table(guest, 2 * ENTRIES)?;
    fill(guest)?;
    let listing = listing(guest)?;
    let scans = LIMITS.map(|limit| scan(guest, limit));
    measured(&Scan {
        entries: entries(guest)?,
        listing,
        scans: scans.into_iter().collect::<Result<_>>()?,
    })
}

/// Entries as DNS leaves them.
fn fill(guest: &Guest) -> Result<()> {
    let mut lines = String::new();
    for i in 0..ENTRIES {
        let (a, b, port) = (
            i / 50_000 / 250 + 1,
            i / 50_000 % 250 + 1,
            i % 50_000 + 1_024,
        );
        writeln!(
            lines,
            "-A -p udp -t 3600 -u SEEN_REPLY -s 10.9.{a}.{b} -d 10.8.0.2 -r 10.8.0.2 -q 10.9.{a}.{b} \
             --sport {port} --dport 53 --reply-port-src 53 --reply-port-dst {port}"
        )?;
    }
    fs::write(FILE, lines).with_context(|| format!("write {FILE}"))?;
    let mut load = Command::new("conntrack");
    guest.run(load.args(["-R", FILE]), PATIENCE)?.ok()?;
    let there = entries(guest)?;
    ensure!(there >= ENTRIES.into(), "{there} entries of {ENTRIES}");
    Ok(())
}

fn entries(guest: &Guest) -> Result<u64> {
    let count = guest.sh("conntrack -C")?;
    count.trim().parse().with_context(|| format!("{count:?}"))
}

/// Seconds that the usual tool takes.
fn listing(guest: &Guest) -> Result<f64> {
    let begin = Instant::now();
    let mut list = Command::new("sh");
    let list = list.args(["-c", "conntrack -L -p udp >/dev/null 2>&1"]);
    guest.run(list, PATIENCE)?.ok()?;
    Ok(begin.elapsed().as_secs_f64())
}

fn scan(guest: &Guest, limit: Duration) -> Result<OneScan> {
    let config = format!(
        "[agent]\ninterval = \"30s\"\n[ailments.udp_conntrack]\nscan_timeout = \"{}ms\"\n",
        limit.as_millis()
    );
    let agent = Agent::start(guest, &config)?;
    let report = eventually(PATIENCE, "a scan", || {
        let report = agent.report()?;
        report["reading"]["snapshot"].as_object().context("none")?;
        Ok(report)
    })?;
    agent.stop()?;
    let snapshot = &report["reading"]["snapshot"];
    let number = |pointer: &str| {
        let value = snapshot.pointer(pointer).and_then(|value| value.as_f64());
        value.with_context(|| format!("no {pointer} in {snapshot}"))
    };
    let states = ["unreplied", "replied", "assured"];
    let states = states.map(|state| number(&format!("/udp/{state}")));
    let seen = states.into_iter().sum::<Result<f64>>()?;
    Ok(OneScan {
        limit: limit.as_secs_f64(),
        seconds: number("/seconds")?,
        seen: seen as u64,
        complete: snapshot["complete"].as_bool().context("no complete")?,
    })
}
