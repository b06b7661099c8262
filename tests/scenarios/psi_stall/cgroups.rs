//! Many cgroups; a scan may read few of them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::cgroup::{self, Cgroup, SPIN};
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use super::{AILMENT, healthy};
use crate::agent::{Agent, SOON};

const MANY: u32 = 1_000;

/// No trace and no trigger helps. On an emulated CPU, and beside two tasks that want it all, a scan
/// reads about half of them.
const FEW: &str =
    "triggers = false\ntrace_duration = \"0s\"\nscan_timeout = \"500ms\"\nscan_cpu_ratio = 0.1";

/// The last two of the alphabet stall. The agent used to begin each scan at the first.
pub(crate) fn the_last_of_many_is_named_although_a_scan_reads_few(
    guest: &Guest,
) -> Result<Verdict> {
    let many = Cgroup::create("/many")?;
    cgroup::make_many(&many, MANY)?;
    let meek = Cgroup::create("/many/meek")?;
    meek.set("cpu.weight", "5")?;
    let loud = Cgroup::create("/many/loud")?;
    let agent = Agent::start_every(guest, "5s", AILMENT, FEW)?;
    healthy(&agent)?;
    ensure!(
        scan(&agent)?["known"].as_u64() >= Some(u64::from(MANY)),
        "not all are known"
    );
    let nobody = agent.report()?["reading"]["cgroups"].to_string();
    ensure!(
        !nobody.contains("/many/meek"),
        "it has not waited: {nobody}"
    );

    let work = [
        meek.start(guest, "meek", SPIN)?,
        loud.start(guest, "loud", SPIN)?,
    ];
    let from = reading(&agent)?;
    let mut readings = Vec::new();
    let mut history = Vec::new();
    // The first reading after their start has little of them.
    let finding = loop {
        let at = reading(&agent)?;
        if at != from && !readings.contains(&at) {
            readings.push(at);
            let report = agent.report()?;
            let read = &report["reading"];
            let cgroups = read["cgroups"].as_array().into_iter().flatten();
            let ages = cgroups.map(|it| format!("{} {}", it["path"], it["window_seconds"]));
            let ages = ages.collect::<Vec<_>>().join(", ");
            history.push(format!(
                "{}, {ages}, {}",
                read["scan"], read["node"]["window"]["cpu"]
            ));
            let found = report["findings"].as_array().into_iter().flatten();
            let finding = found.into_iter().find(|it| it["kind"] == "cpu_contention");
            let names = |finding: &Value| {
                let who = |parties: &str| finding[parties][0]["who"].to_string();
                who("victims").contains("/many/meek") && who("culprits").contains("/many/loud")
            };
            if let Some(finding) = finding.filter(|it| names(it)) {
                break finding.clone();
            }
            ensure!(
                readings.len() <= 4,
                "nobody is named in 3 readings: {history:#?}, {report}"
            );
        }
        sleep(Duration::from_millis(200));
    };
    eprintln!(
        "named in reading {} of the stall: {finding}",
        readings.len()
    );
    let scan = scan(&agent)?;
    eprintln!("the scan: {scan}");
    drop(work);
    meek.empties()?;
    loud.empties()?;
    eventually(2 * SOON, "nobody is named", || {
        let findings = agent.report()?["findings"].to_string();
        ensure!(!findings.contains("/many"), "{findings}");
        Ok(())
    })?;
    drop(agent);
    cgroup::remove_many(&many, MANY)?;
    Ok(Verdict::Passed)
}

fn reading(agent: &Agent) -> Result<Value> {
    Ok(agent.report()?["reading_unix_seconds"].clone())
}

fn scan(agent: &Agent) -> Result<Value> {
    let scan = agent.report()?["reading"]["scan"].clone();
    ensure!(scan.is_object(), "there is no scan");
    Ok(scan)
}

/// What a scan rests on: a cgroup waits for as long as any below it, but for parts of a jiffy that
/// the kernel leaves out each time that it adds up (here each two seconds, and at each reading).
pub(crate) fn one_below_a_quiet_one_has_not_waited(guest: &Guest) -> Result<Verdict> {
    const JIFFIES: u64 = 4 * 10_000;
    Cgroup::create("/quiet")?;
    Cgroup::create("/quiet/below")?;
    Cgroup::create("/busy")?;
    let meek = Cgroup::create("/busy/meek")?;
    let work = [
        busy_task(guest, &meek, "one")?,
        busy_task(guest, &meek, "two")?,
    ];
    let mut before = totals()?;
    for _ in 0..8 {
        sleep(Duration::from_secs(1));
        let now = totals()?;
        let moved: Vec<_> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        let [busy_below, busy, quiet_below, quiet] = moved[..] else {
            bail!("{moved:?}");
        };
        ensure!(
            busy_below <= busy + JIFFIES,
            "{busy_below} us below, {busy} us above"
        );
        ensure!(busy > 500_000, "/busy waited for {busy} us");
        ensure!(
            (quiet_below, quiet) == (0, 0),
            "nobody waits in /quiet: {moved:?}"
        );
        before = now;
    }
    let links = |path: &str| -> Result<u64> {
        let stat = fs::metadata(format!("/sys/fs/cgroup{path}")).context("look at a cgroup")?;
        Ok(stat.nlink())
    };
    let counts = (links("/quiet")?, links("/quiet/below")?);
    ensure!(counts == (3, 2), "the links are {counts:?}");
    drop(work);
    meek.empties()?;
    Ok(Verdict::Passed)
}

fn busy_task(guest: &Guest, cgroup: &Cgroup, name: &str) -> Result<Process> {
    cgroup.start(guest, name, SPIN)
}

/// What tasks have waited for a CPU so far, microseconds; those below are read before those above.
fn totals() -> Result<Vec<u64>> {
    let paths = ["/busy/meek", "/busy", "/quiet/below", "/quiet"];
    paths
        .into_iter()
        .map(|path| {
            let file = format!("/sys/fs/cgroup{path}/cpu.pressure");
            let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
            let some = text.lines().find_map(|line| line.strip_prefix("some "));
            let total = some.and_then(|line| line.rsplit_once("total="));
            let (_, total) = total.with_context(|| format!("{file} has {text:?}"))?;
            total.trim().parse().context("read a total")
        })
        .collect()
}
