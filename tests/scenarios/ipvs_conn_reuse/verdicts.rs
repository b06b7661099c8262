//! Sick is found and named, its remedy helps, healthy is not found.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{self, Close, Connection, Name, Settings, Site};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use super::{
    AILMENT, AT_ONCE, Outcomes, SECOND_SYN, attached, connected, finds_nothing, is_unfixed,
    observed,
};
use crate::agent::{Agent, SOON, check, verb};

const CLOSE_TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close";
const EXPIRE_NODEST_CONN: &str = "net.ipv4.vs.expire_nodest_conn";
const NEVER_CONNECTED: &str = "nodemedic_ipvs_conn_reuse_gave_up_total";
const WAITING: &str = "nodemedic_ipvs_conn_reuse_waiting";

/// A client's port, and the port of the service that it uses.
const CLIENT: u16 = 20_000;
const SERVICE: u16 = 8_000;
const BOTH: [(u16, u16); 1] = [(CLIENT, SERVICE)];

const KEEPS: Settings = Settings {
    expire_nodest_conn: 0,
    ..Settings::KUBE_PROXY
};

/// Servers that stay, and connections that both sides have ended: clients come back on their
/// ports, are sent on at once, and nothing is found.
pub(crate) fn clean_closes_are_healthy(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    let agent = observed(guest, &site)?;
    let ports = (0..30).map(|number| (CLIENT + number, SERVICE));
    let ports = ports.collect::<Vec<_>>();
    site.add_services(guest, &[SERVICE])?;
    // Without the fix every reuse waits, and is found.
    let is_fixed = !is_unfixed(guest)?;
    for close in [Close::ClientFin, Close::ServerFin, Close::ClientReset] {
        let connections = site.connect_all(&ports, 3 * SECOND_SYN)?;
        let connections = connections.into_iter().collect::<Option<Vec<_>>>();
        let connections = connections.context("nobody answers")?;
        reuse::close_all(
            connections
                .into_iter()
                .map(|connection| (connection, close)),
        )?;
    }
    agent.shows("the SYNs that met a connection", SOON, |metrics| {
        let counted = Outcomes::all(metrics);
        let met = counted.rescheduled + counted.dropped;
        ensure!(met == 60, "{counted:?}");
        ensure!(
            counted.dropped == if is_fixed { 0 } else { 60 },
            "{counted:?}"
        );
        Ok(())
    })?;
    if is_fixed {
        agent.finds(&[], SOON)?;
        let status = check(guest, &[AILMENT])?.status;
        ensure!(
            finds_nothing(guest, status.code()),
            "check ends with {status}"
        );
    }
    Ok(Verdict::Passed)
}

/// The server resets, and is kept: the client waits for a second. With a shorter stay of reset
/// connections in conntrack it does not.
pub(crate) fn a_delay_is_over_with_its_remedy(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    let agent = observed(guest, &site)?;
    let first = reset_by_the_server(guest, &site, CLIENT)?;
    ensure!(
        first.server == Name::New && first.took > AT_ONCE,
        "{first:?}"
    );
    let finding = agent.finds_one("delayed", SOON)?;
    // The new one may have come a reading later.
    names_all(&finding, &site)?;
    goes_to_the_new_server(&agent, &site)?;
    if is_unfixed(guest)? {
        return Ok(Verdict::Passed);
    }
    let remedies = finding["remedies"].to_string();
    ensure!(
        remedies.contains(&format!("sysctl -w {CLOSE_TIMEOUT}=1")),
        "{remedies}"
    );
    ensure!(
        remedies.contains("do not set net.ipv4.vs.conn_reuse_mode=0"),
        "{remedies}"
    );
    ensure!(remedies.contains("kube-proxy"), "{remedies}");

    verb(guest, &["treat", "ipvs_conn_reuse", "--apply"])?.ok()?;
    ensure!(guest.sysctl(CLOSE_TIMEOUT)? == "1", "it stays");
    site.clear(guest)?;
    let before = Outcomes::all(&agent.metrics()?);
    reset_by_the_server(guest, &site, CLIENT + 1)?;
    agent.shows("it was scheduled at once", SOON, |metrics| {
        let counted = Outcomes::all(metrics);
        ensure!(
            counted.rescheduled == before.rescheduled + 1 && counted.dropped == before.dropped,
            "{before:?}, then {counted:?}"
        );
        Ok(())
    })?;
    agent.finds(&[], SOON)?;
    verb(guest, &["undo"])?.ok()?;
    ensure!(guest.sysctl(CLOSE_TIMEOUT)? == "10", "it is not back");
    Ok(Verdict::Passed)
}

/// The reading names where the new connection went.
fn goes_to_the_new_server(agent: &Agent, site: &Site) -> Result<()> {
    let new = site.server(Name::New).to_string();
    eventually(SOON, "the new destination is named", || {
        let reading = agent.report()?["reading"].clone();
        let service = &reading["probed"]["services"][0];
        ensure!(service["new_destination"] == new.as_str(), "{service}");
        Ok(())
    })
}

/// A connection that the server resets, and the next one of its port, after a while in which
/// conntrack may forget the first.
fn reset_by_the_server(guest: &Guest, site: &Site, client: u16) -> Result<Connection> {
    site.add_services(guest, &[SERVICE])?;
    let first = connected(site, &[(client, SERVICE)])?;
    reuse::close_all(
        first
            .into_iter()
            .map(|connection| (connection, Close::ServerReset)),
    )?;
    site.add_new_server(guest, &[SERVICE])?;
    sleep(Duration::from_millis(1_300));
    let second = site.connect(client, SERVICE, SECOND_SYN)?;
    second.context("nobody answers the second connection")
}

/// A drained server goes on getting the SYNs of its old clients, until IPVS is told to let go.
pub(crate) fn drained_servers_are_left_by_the_remedy(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(
        guest,
        Settings {
            conn_reuse_mode: 0,
            ..KEEPS
        },
    )?;
    let agent = observed(guest, &site)?;
    let drain = |site: &Site| site.drain_old_server(guest, &[SERVICE]);
    let sick = come_back(guest, &site, CLIENT, drain)?.context("nobody answers")?;
    ensure!(sick.server == Name::Old, "{sick:?}");
    let finding = agent.finds_one("misdirected", SOON)?;
    names_all(&finding, &site)?;
    cured_by_letting_go(guest, &site, &agent, &finding, drain)
}

/// A removed server swallows the SYNs of its old clients, until IPVS is told to let go.
pub(crate) fn a_black_hole_is_closed_by_its_remedy(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(
        guest,
        Settings {
            conn_reuse_mode: 0,
            ..KEEPS
        },
    )?;
    let agent = observed(guest, &site)?;
    let remove = |site: &Site| site.remove_old_server(guest, &[SERVICE]);
    let sick = come_back(guest, &site, CLIENT, remove)?;
    ensure!(sick.is_none(), "{sick:?}");
    let finding = agent.finds_one("blackholed", SOON)?;
    names_all(&finding, &site)?;
    let verdict = cured_by_letting_go(guest, &site, &agent, &finding, remove)?;
    let status = check(guest, &[AILMENT])?.status;
    ensure!(
        finds_nothing(guest, status.code()),
        "check, which came later, ends with {status}"
    );
    Ok(verdict)
}

/// The remedy named first is `expire_nodest_conn=1`, and with it the same is healthy.
fn cured_by_letting_go(
    guest: &Guest,
    site: &Site,
    agent: &Agent,
    finding: &Value,
    change: impl Fn(&Site) -> Result<()>,
) -> Result<Verdict> {
    let remedy = finding["remedies"][0].as_str().unwrap_or_default();
    let command = format!("sysctl -w {EXPIRE_NODEST_CONN}=1");
    ensure!(remedy.contains(&command), "{finding}");
    verb(guest, &["treat", "ipvs_conn_reuse", "--apply"])?.ok()?;
    ensure!(guest.sysctl(EXPIRE_NODEST_CONN)? == "1", "it keeps them");
    site.clear(guest)?;
    agent.finds(&[], SOON)?;
    let before = Outcomes::all(&agent.metrics()?);
    let cured = come_back(guest, site, CLIENT + 1, change)?.context("nobody answers")?;
    ensure!(cured.server == Name::New, "{cured:?}");
    agent.shows("no SYN went astray", SOON, |metrics| {
        let counted = Outcomes::all(metrics);
        ensure!(
            counted.stale_destination == before.stale_destination
                && counted.dropped_silently == before.dropped_silently,
            "{before:?}, then {counted:?}"
        );
        Ok(())
    })?;
    agent.finds(&[], SOON)?;
    verb(guest, &["undo"])?.ok()?;
    ensure!(guest.sysctl(EXPIRE_NODEST_CONN)? == "0", "it is not back");
    Ok(Verdict::Passed)
}

/// A connection that the client ends, a change of the servers, and the next one of its port.
fn come_back(
    guest: &Guest,
    site: &Site,
    client: u16,
    change: impl Fn(&Site) -> Result<()>,
) -> Result<Option<Connection>> {
    site.add_services(guest, &[SERVICE])?;
    let first = connected(site, &[(client, SERVICE)])?;
    reuse::close_all(
        first
            .into_iter()
            .map(|connection| (connection, Close::ClientFin)),
    )?;
    site.add_new_server(guest, &[SERVICE])?;
    change(site)?;
    site.connect(client, SERVICE, SECOND_SYN)
}

/// Who is concerned: the service, where the old connection led, and the client.
fn names_all(finding: &Value, site: &Site) -> Result<()> {
    let culprit = finding["culprits"][0].to_string();
    for name in [site.service(SERVICE), site.server(Name::Old)] {
        ensure!(
            culprit.contains(&name.to_string()),
            "{name} is not in {culprit}"
        );
    }
    let victim = finding["victims"][0].to_string();
    let client = site.client_address().to_string();
    ensure!(victim.contains(&client), "{client} is not in {victim}");
    Ok(())
}

/// A client whose SYNs are all dropped waits, gives up, and is counted as one that never
/// connected.
pub(crate) fn a_client_that_gives_up_is_counted(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, KEEPS)?;
    let agent = attached(guest, &site, "give_up_after = \"8s\"")?;
    site.add_services(guest, &[SERVICE])?;
    let first = connected(&site, &BOTH)?;
    reuse::close_all(
        first
            .into_iter()
            .map(|connection| (connection, Close::Vanished)),
    )?;
    site.add_new_server(guest, &[SERVICE])?;
    site.remove_old_server(guest, &[SERVICE])?;
    let answer = site.connect(CLIENT, SERVICE, SECOND_SYN)?;
    ensure!(answer.is_none(), "{answer:?}");
    agent.shows("it waits", SOON, |metrics| {
        let waiting = metrics.value(WAITING, &[])?;
        ensure!(waiting == 1.0, "{waiting} wait");
        Ok(())
    })?;
    agent.shows("it has given up", SOON, |metrics| {
        let (waiting, gone) = (
            metrics.value(WAITING, &[])?,
            metrics.value(NEVER_CONNECTED, &[])?,
        );
        ensure!(
            (waiting, gone) == (0.0, 1.0),
            "{waiting} wait, {gone} have given up"
        );
        Ok(())
    })?;
    Ok(Verdict::Passed)
}
