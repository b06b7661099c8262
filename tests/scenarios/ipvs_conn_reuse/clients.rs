//! Many clients, and clients that nobody here wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{self, Close, Name, Settings, Site};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::{ANSWER, AT_ONCE, DELAYS, Outcomes, connected, is_unfixed, nothing_is_lost, observed};
use crate::agent::SOON;

const SERVICE: u16 = 8_000;

/// All at once would be more than an emulated CPU serves within a second.
const AT_A_TIME: usize = 30;

/// What became of the clients' SYNs on the wire.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Clients of whom a SYN came to no server, so that they waited for its repetition.
    pub(crate) delayed: u32,
    /// Such SYNs.
    pub(crate) lost: u32,
}

/// A server is replaced as kube-proxy does it: it is drained, its connections end one way or
/// another, it is removed. Its clients come back on their ports, some while it is drained and some
/// at the moment of its removal; each that waited is counted, and nobody else.
pub(crate) fn a_rolling_upgrade_delays_as_many_as_the_agent_counts(
    guest: &Guest,
) -> Result<Verdict> {
    const CLIENTS: u16 = 300;
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    let agent = observed(guest, &site)?;
    site.add_services(guest, &[SERVICE])?;
    let ports = (0..CLIENTS).map(|client| (20_000 + client, SERVICE));
    let ports = ports.collect::<Vec<_>>();
    let mut old = Vec::new();
    for some in ports.chunks(AT_A_TIME) {
        old.extend(connected(&site, some)?);
    }
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    let ways = Close::ALL.into_iter().cycle();
    reuse::close_all(old.into_iter().zip(ways))?;

    let (early, late) = ports.split_at(ports.len() / 2);
    let mut seen = Seen::default();
    seen.add(come_back(&site, early)?);
    ensure!(seen.delayed > 0, "nobody waited for a drained server");
    site.remove_old_server(guest, &[SERVICE])?;
    seen.add(come_back(&site, late)?);
    println!("{seen:?}");
    agent.shows("what the clients saw", SOON, |metrics| {
        let (delays, counted) = (metrics.value(DELAYS, &[])?, Outcomes::all(metrics));
        ensure!(
            delays == f64::from(seen.delayed) && counted.dropped == seen.lost,
            "{delays} delays, {counted:?}; the clients saw {seen:?}"
        );
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

impl Seen {
    fn add(&mut self, more: Self) {
        self.delayed += more.delayed;
        self.lost += more.lost;
    }
}

/// New connections from old ports, all to the new server.
pub(crate) fn come_back(site: &Site, ports: &[(u16, u16)]) -> Result<Seen> {
    let mut seen = Seen::default();
    for some in ports.chunks(AT_A_TIME) {
        site.syns()?;
        site.syns_at(Name::New)?;
        let answers = site.connect_all(some, ANSWER)?;
        let (sent, arrived) = (site.syns()?, site.syns_at(Name::New)?);
        for (answer, (port, _)) in answers.into_iter().zip(some) {
            let connection = answer.context("nobody answers")?;
            ensure!(connection.server == Name::New, "the old server answers");
            let of = |syns: &BTreeMap<u16, u32>| syns.get(port).copied().unwrap_or(0);
            let lost = of(&sent) - of(&arrived);
            seen.add(Seen {
                delayed: u32::from(lost > 0),
                lost,
            });
        }
    }
    Ok(seen)
}

/// `curl` on the port of a connection that the server has reset waits for a second, and once more
/// on the port of one that has ended well it does not; the agent counts it so.
pub(crate) fn curl_waits_where_the_agent_says(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    let agent = observed(guest, &site)?;
    site.add_services(guest, &[SERVICE])?;
    let old = connected(&site, &[(20_000, SERVICE)])?;
    reuse::close_all(old.into_iter().map(|old| (old, Close::ServerReset)))?;
    site.add_new_server(guest, &[SERVICE])?;

    let slow = curl(&site, 20_000)?;
    ensure!(slow > AT_ONCE, "curl connected within {slow:?}");
    agent.shows("one delay", SOON, |metrics| {
        let (delays, counted) = (metrics.value(DELAYS, &[])?, Outcomes::all(metrics));
        ensure!(
            delays == 1.0 && counted.dropped == 1,
            "{delays}, {counted:?}"
        );
        Ok(())
    })?;
    let unfixed = is_unfixed(guest)?;
    let next = curl(&site, 20_000)?;
    ensure!(
        (next > AT_ONCE) == unfixed,
        "curl connected within {next:?}"
    );
    agent.shows("the next one too", SOON, |metrics| {
        let counted = Outcomes::all(metrics);
        let wanted = if unfixed { (0, 2) } else { (1, 1) };
        ensure!(
            (counted.rescheduled, counted.dropped) == wanted,
            "{counted:?}"
        );
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// Fetches a page from this port; the time until it was connected.
fn curl(site: &Site, port: u16) -> Result<Duration> {
    let url = format!("http://{}/", site.service(SERVICE));
    let seconds = site.client().sh(&format!(
        "curl --silent --show-error --fail --local-port {port} --output /tmp/page \
         --write-out '%{{time_connect}}' {url}"
    ))?;
    let page = fs::read_to_string("/tmp/page").context("read the page")?;
    ensure!(page == "1" || page == "2", "the page is {page:?}");
    Ok(Duration::from_secs_f64(seconds.trim().parse()?))
}

/// ApacheBench with few ports uses each several times. Every connection but the first of a port
/// meets an old one, and those that its own log calls slow are the agent's delays.
pub(crate) fn ab_and_the_agent_count_alike(guest: &Guest) -> Result<Verdict> {
    const REQUESTS: u32 = 200;
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    let agent = observed(guest, &site)?;
    site.add_services(guest, &[SERVICE])?;
    let client = site.client();
    client.set_sysctl("net.ipv4.ip_local_port_range", "40000 40039")?;
    site.attempts()?;
    let url = format!("http://{}/", site.service(SERVICE));
    client.sh(&format!(
        "ab -q -n {REQUESTS} -c 8 -s 20 -g /tmp/ab.tsv {url}"
    ))?;
    let log = fs::read_to_string("/tmp/ab.tsv").context("read the log of ab")?;
    let attempts = site.attempts()?;
    let ports = attempts.keys().map(|(port, _)| port);
    let ports = ports.collect::<BTreeSet<_>>().len() as u32;
    ensure!(ports < REQUESTS / 2, "ab used {ports} ports");
    // It opens some that it does not need, and leaves them alone when it has what it wants.
    let connections = attempts.len() as u32;
    ensure!(connections >= REQUESTS, "{connections} connections");
    let repeated = attempts.values().filter(|syns| **syns > 1).count() as u32;
    // One that is slow without a second SYN had to wait for its emulator.
    let slow = slow_connects(&log)?.min(repeated);
    println!("{ports} ports, {connections} connections, {slow} slow, {repeated} repeated");
    let unfixed = is_unfixed(guest)?;
    ensure!((slow > 0) == unfixed, "{slow} connections were slow");
    agent.shows("what ab saw", SOON, |metrics| {
        let (delays, counted) = (metrics.value(DELAYS, &[])?, Outcomes::all(metrics));
        ensure!(
            counted.rescheduled + counted.dropped == connections - ports,
            "{counted:?}, {connections} connections, {ports} ports"
        );
        let dropped = if unfixed { connections - ports } else { 0 };
        // The last may have been repeated too late for the log.
        let delayed = f64::from(slow)..=f64::from(repeated);
        ensure!(
            delayed.contains(&delays) && counted.dropped == dropped,
            "{delays} delays of {delayed:?}, {counted:?}"
        );
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// Connections that took longer than any that was not dropped: `ctime` of `ab -g`, milliseconds.
fn slow_connects(log: &str) -> Result<u32> {
    let mut lines = log.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let header = lines.next().context("an empty log")?;
    let ctime = header.iter().position(|title| *title == "ctime");
    let ctime = ctime.context("no column ctime")?;
    let mut slow = 0;
    for line in lines {
        let took = Duration::from_millis(line[ctime].parse()?);
        slow += u32::from(took > AT_ONCE);
    }
    Ok(slow)
}
