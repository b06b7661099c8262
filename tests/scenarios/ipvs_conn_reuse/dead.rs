//! The treatment `sweep_dead`: connections that are dead make room for the next of their client,
//! those that are alive stay as they are.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{self, Close, Connection, Name, Settings, Site};
use nodemedic_tests::guest::{Guest, Output, Process};
use nodemedic_tests::scenario::Verdict;

use super::{ALL_NAMES, ANSWER, AT_ONCE, attached, connected, is_unfixed, observed};
use crate::agent::{SOON, verb};

const NETLINK: &str = "nf_conntrack_netlink";
const SWEPT: &str = "nodemedic_ipvs_conn_reuse_swept_total";
const LEFT: &str = "nodemedic_ipvs_conn_reuse_sweep_skipped_total";

const SERVICE: u16 = 8_000;
/// The service of the connections that live.
const LONG_LIVED: u16 = 8_001;

/// All at once would be more than an emulated CPU serves within a second.
const AT_A_TIME: usize = 30;

const SWEEP: [&str; 5] = [
    "treat",
    "ipvs_conn_reuse",
    "--treatment",
    "sweep_dead",
    "--apply",
];

/// Ports of clients whose connections are ended alike, in each round others.
struct Ends {
    close: Close,
    ports: Range<u16>,
    reason: &'static str,
}

fn ends(first: u16) -> [Ends; 3] {
    let each = 4;
    let ports = |number: u16| first + number * each..first + (number + 1) * each;
    [
        Ends {
            close: Close::ServerReset,
            ports: ports(0),
            reason: "reset",
        },
        // The last acknowledgement is lost.
        Ends {
            close: Close::ClientFin,
            ports: ports(1),
            reason: "last_ack_lost",
        },
        // The server's FIN is never acknowledged.
        Ends {
            close: Close::Unanswered,
            ports: ports(2),
            reason: "fin_unanswered",
        },
    ]
}

/// Clients that were reset, whose last acknowledgement was lost, and that are gone while their
/// drained server closes: they wait when they come back, but not while they are swept, and again
/// after that. Connections of a drained server that are idle stay as they are.
pub(crate) fn dead_connections_make_room_and_living_ones_stay(guest: &Guest) -> Result<Verdict> {
    if is_unfixed(guest)? {
        return Ok(Verdict::Skipped("it drops every reuse".to_owned()));
    }
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    let agent = observed(guest, &site)?;
    without_ctnetlink_it_is_refused(guest)?;
    guest.modprobe(NETLINK)?;

    site.add_services(guest, &[LONG_LIVED])?;
    let idle: Vec<_> = (30_000..30_004).map(|port| (port, LONG_LIVED)).collect();
    let mut idle = connected(&site, &idle)?;
    site.drain_old_server(guest, &[LONG_LIVED])?;
    let before = entries(guest, LONG_LIVED)?;

    let sick = round(guest, &site, &ends(20_000), || Ok(()))?;
    ensure!(sick == 12, "{sick} of 12 waited");
    agent.finds_one("delayed", SOON)?;
    verb(guest, &SWEEP)?.ok()?;
    let treated = round(guest, &site, &ends(21_000), || {
        agent.shows("all are swept", SOON, |metrics| {
            for end in ends(21_000) {
                let swept = metrics.value(SWEPT, &[("reason", end.reason)])?;
                ensure!(swept >= 4.0, "{}: {swept}", end.reason);
            }
            Ok(())
        })
    })?;
    ensure!(treated == 0, "{treated} of 12 waited while they were swept");

    for connection in &mut idle {
        ensure!(connection.ask_again()? == Name::Old, "another answers");
    }
    let after = entries(guest, LONG_LIVED)?;
    ensure!(before == after, "{before:?}, and swept {after:?}");

    verb(guest, &["undo"])?.ok()?;
    let undone = round(guest, &site, &ends(22_000)[..1], || Ok(()))?;
    ensure!(undone == 4, "{undone} of 4 waited after it was undone");
    Ok(Verdict::Passed)
}

/// Nothing loads the module.
fn without_ctnetlink_it_is_refused(guest: &Guest) -> Result<()> {
    if guest.is_loaded(NETLINK)? {
        guest.rmmod(NETLINK)?;
    }
    eventually(SOON, "it is refused", || {
        let refused = verb(guest, &[&SWEEP[..], &["--force"]].concat())?;
        is_refused(&refused, &format!("modprobe {NETLINK}"))
    })?;
    ensure!(!guest.is_loaded(NETLINK)?, "{NETLINK} was loaded");
    Ok(())
}

fn is_refused(refused: &Output, why: &str) -> Result<()> {
    ensure!(
        refused.status.code() == Some(2) && refused.stderr.contains(why),
        "{refused:?}"
    );
    Ok(())
}

/// How conntrack has the connections of a service: what stays the same while nobody speaks.
fn entries(guest: &Guest, service: u16) -> Result<Vec<String>> {
    let listed = guest.sh(&format!("conntrack -L -p tcp --orig-port-dst {service}"))?;
    let fixed = |line: &str| {
        let words = line.split_whitespace().enumerate();
        // The second is the time that is left.
        let words = words.filter(|(number, _)| *number != 2);
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    };
    let mut entries: Vec<_> = listed.lines().map(fixed).collect();
    entries.sort();
    Ok(entries)
}

/// Connections that end in these ways while their server is drained, and how many of their clients
/// wait when they come back, once `ready` says so.
fn round(
    guest: &Guest,
    site: &Site,
    ends: &[Ends],
    ready: impl Fn() -> Result<()>,
) -> Result<usize> {
    anew(guest, site)?;
    let mut open = Vec::new();
    for end in ends {
        if end.close != Close::ServerReset {
            site.lose_acknowledgements(end.ports.clone())?;
        }
        let ports: Vec<_> = end.ports.clone().map(|port| (port, SERVICE)).collect();
        let connections = connected(site, &ports)?;
        open.extend(connections.into_iter().map(|it| (it, end.close)));
    }
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    reuse::close_all(open)?;
    ready()?;
    let ports = ends.iter().flat_map(|end| end.ports.clone());
    let ports: Vec<_> = ports.map(|port| (port, SERVICE)).collect();
    waiting(site, &ports)
}

/// How many of these clients wait when they come back, all to the new server.
fn waiting(site: &Site, ports: &[(u16, u16)]) -> Result<usize> {
    let mut waited = 0;
    for some in ports.chunks(AT_A_TIME) {
        for answer in site.connect_all(some, ANSWER)? {
            let connection: Connection = answer.context("nobody answers")?;
            ensure!(connection.server == Name::New, "the old server answers");
            waited += usize::from(connection.took > AT_ONCE);
        }
    }
    Ok(waited)
}

/// A server is drained and resets its 500 clients; all come back on their ports.
pub(crate) fn a_rolling_upgrade_delays_nobody_while_it_is_swept(guest: &Guest) -> Result<Verdict> {
    const CLIENTS: u16 = 500;
    if is_unfixed(guest)? {
        return Ok(Verdict::Skipped("it drops every reuse".to_owned()));
    }
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    guest.modprobe(NETLINK)?;
    let agent = observed(guest, &site)?;
    let forced = [&SWEEP[..], &["--force"]].concat();
    verb(guest, &forced)?.ok()?;
    site.add_services(guest, &[SERVICE])?;
    let ports: Vec<_> = (0..CLIENTS)
        .map(|client| (20_000 + client, SERVICE))
        .collect();
    let mut old = Vec::new();
    for some in ports.chunks(AT_A_TIME) {
        old.extend(connected(&site, some)?);
    }
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    reuse::close_all(old.into_iter().map(|it| (it, Close::ServerReset)))?;
    let waited = waiting(&site, &ports)?;
    println!("{waited} of {CLIENTS} waited");
    ensure!(waited == 0, "{waited} of {CLIENTS} waited");
    agent.shows("that all were swept", SOON, |metrics| {
        let swept = metrics.value(SWEPT, &[("reason", "reset")])?;
        ensure!(swept >= f64::from(CLIENTS), "{swept}");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// No more are opened than are allowed; what is left is counted, and its clients wait. In a network
/// namespace of its own, and over IPv6. When the agent is killed nothing is left to be undone.
pub(crate) fn sweeping_keeps_to_its_rate(guest: &Guest) -> Result<Verdict> {
    const CLIENTS: u16 = 30;
    if is_unfixed(guest)? {
        return Ok(Verdict::Skipped("it drops every reuse".to_owned()));
    }
    let site = Site::apart(guest, Family::V6, "apart")?;
    site.set(guest, Settings::KUBE_PROXY)?;
    guest.modprobe(NETLINK)?;
    let mut agent = attached(guest, &site, &format!("{ALL_NAMES}\nsweep_rate = 1"))?;
    let forced = [&SWEEP[..], &["--force"]].concat();
    verb(guest, &forced)?.ok()?;
    let end = Ends {
        close: Close::ServerReset,
        ports: 20_000..20_000 + CLIENTS,
        reason: "reset",
    };
    let began = std::time::Instant::now();
    // Those that are left wait once it has found them; before that anybody would.
    let waited = round(guest, &site, &[end], || {
        agent.shows("that it has found them", SOON, |metrics| {
            let left = metrics.value(LEFT, &[("reason", "rate")])?;
            ensure!(left > 0.0, "none is left");
            Ok(())
        })
    })?;
    let allowed = 1 + began.elapsed().as_secs() as usize;
    let at_once = usize::from(CLIENTS) - waited;
    ensure!(waited > 0, "nobody waited");
    agent.shows("what is left", SOON, |metrics| {
        let (swept, left) = (
            metrics.value(SWEPT, &[("reason", "reset")])?,
            metrics.value(LEFT, &[("reason", "rate")])?,
        );
        ensure!(
            left > 0.0 && swept >= at_once as f64,
            "{swept}, {left} left"
        );
        Ok(())
    })?;
    ensure!(at_once <= allowed, "{at_once} at once, {allowed} allowed");
    agent.process().signal(Signal::SIGKILL)?;
    agent.process().wait(SOON)?;
    let undone = verb(guest, &["undo"])?.ok()?;
    ensure!(undone.contains("undone"), "{undone}");
    Ok(Verdict::Passed)
}

/// After a reset that the client did not see it sends once more, and then comes back anew. With a
/// `tcp_timeout_close` of a second that packet finds no entry and makes one, which the server's
/// answer resets, and which is in the way of the SYN for another second; with 0 it is gone at
/// once. An entry that was opened is not in the way, here by `nodemedic sweep`.
pub(crate) fn late_packets_bring_the_delay_back_unless_the_entry_was_opened(
    guest: &Guest,
) -> Result<Verdict> {
    const CLOSE_TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_close";
    if is_unfixed(guest)? {
        return Ok(Verdict::Skipped("it drops every reuse".to_owned()));
    }
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    guest.modprobe(NETLINK)?;
    let expired = || {
        sleep(Duration::from_millis(1_300));
        Ok(())
    };
    let mut waited = Vec::new();
    for (first, seconds) in [(20_000, "10"), (22_000, "0")] {
        guest.set_sysctl(CLOSE_TIMEOUT, seconds)?;
        waited.push((seconds, late(guest, &site, first, expired)?));
    }
    // On a machine that is held up, a second may be over before they are back.
    guest.set_sysctl(CLOSE_TIMEOUT, "1")?;
    let mut with_a_second = 0;
    for first in [21_000, 21_100, 21_200] {
        if with_a_second == 0 {
            with_a_second = late(guest, &site, first, expired)?;
        }
    }
    ensure!(with_a_second > 0, "nobody waited with a timeout of 1 s");
    guest.set_sysctl(CLOSE_TIMEOUT, "10")?;
    let shown = guest.start("sweep", &mut guest.agent(&["sweep", "--duration", "60s"])?)?;
    let all_are_told = |process: &Process, deed: &str, first: u16| {
        (first..first + LATE).try_for_each(|port| {
            let line = format!("{deed} {}:{port}", site.client_address());
            process.wait_for(&line, SOON)
        })
    };
    let reported = late(guest, &site, 23_000, || {
        all_are_told(&shown, "would open", 23_000)
    })?;
    waited.push(("10, and told", reported));
    drop(shown);
    let mut sweep = guest.agent(&["sweep", "--apply", "--duration", "60s"])?;
    let sweep = guest.start("sweep", &mut sweep)?;
    let swept = late(guest, &site, 24_000, || {
        all_are_told(&sweep, "opened", 24_000)
    })?;
    println!("of {LATE} waited, by the timeout: {waited:?}; opened: {swept}");
    ensure!(
        swept == 0,
        "{swept} of {LATE} waited though they were opened"
    );
    let all = usize::from(LATE);
    let wanted = [("10", all), ("0", 0), ("10, and told", all)];
    ensure!(
        waited == wanted,
        "of {LATE} waited, by the timeout: {waited:?}"
    );
    Ok(Verdict::Passed)
}

/// Clients that do not learn of their reset.
const LATE: u16 = 4;

/// How many of them wait when they come back.
fn late(guest: &Guest, site: &Site, first: u16, ready: impl Fn() -> Result<()>) -> Result<usize> {
    let ports = first..first + LATE;
    anew(guest, site)?;
    site.lose_resets(ports.clone())?;
    let ports: Vec<_> = ports.map(|port| (port, SERVICE)).collect();
    let mut old = connected(site, &ports)?;
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    old.iter_mut().try_for_each(Connection::reset_unseen)?;
    ready()?;
    old.iter_mut().try_for_each(Connection::speak)?;
    reuse::close_all(old.into_iter().map(|it| (it, Close::Vanished)))?;
    waiting(site, &ports)
}

/// The service as at first, with the old server alone.
fn anew(guest: &Guest, site: &Site) -> Result<()> {
    let service = site.service(SERVICE);
    site.sh(guest, &format!("ipvsadm -D -t {service} || true"))?;
    site.add_services(guest, &[SERVICE])
}

/// Where IPVS drops every reuse nothing that is done to conntrack helps, and the agent knows.
pub(crate) fn an_unfixed_kernel_is_not_swept(guest: &Guest) -> Result<Verdict> {
    if !is_unfixed(guest)? {
        return Ok(Verdict::Skipped("it is fixed".to_owned()));
    }
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    guest.modprobe(NETLINK)?;
    let agent = observed(guest, &site)?;
    site.add_services(guest, &[SERVICE])?;
    let ports: Vec<_> = (20_000..20_004).map(|port| (port, SERVICE)).collect();
    let old = connected(&site, &ports)?;
    reuse::close_all(old.into_iter().map(|it| (it, Close::ClientFin)))?;
    for answer in site.connect_all(&ports, ANSWER)? {
        let connection = answer.context("nobody answers")?;
        ensure!(connection.took > AT_ONCE, "{connection:?}");
    }
    agent.finds_one("delayed", SOON)?;
    let refused = verb(guest, &SWEEP)?;
    is_refused(&refused, "drops the first SYN on every reused port")?;
    Ok(Verdict::Passed)
}
