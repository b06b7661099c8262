//! The whole table: every setting, every fate of the old server, every way to close.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{self, Close, Name, Settings, Site};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::{
    ALL_NAMES, CLEANED_UP, DELAYS, Outcomes, SECOND_SYN, WATCHING, attached, connected,
    nothing_is_lost,
};
use crate::agent::{Agent, SOON};

/// For which IPVS keeps a connection that was reset (`tcp_timeouts`, ip_vs_proto_tcp.c).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// On a machine that is too slow for that, now and then.
const TRIES: u32 = 5;

/// What becomes of the server of the old connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Drained,
    Removed,
}

const FATES: [Fate; 3] = [Fate::Kept, Fate::Drained, Fate::Removed];

/// One client, one service, one way to end and to come back.
#[derive(Debug, Clone, Copy)]
struct Cell {
    client_port: u16,
    service_port: u16,
    fate: Fate,
    close: Close,
}

/// What a client saw when it came back.
#[derive(Debug)]
struct Sight {
    /// Whether IPVS had a connection of its port.
    met: bool,
    /// SYNs on the wire.
    syns: u32,
    /// Those of them that came to the old server, and to the new one.
    at_old: u32,
    at_new: u32,
    /// Who answered, and after how long, if the connection held.
    answer: Option<(Name, Option<Duration>)>,
}

/// All settings x all fates of the server x all ways to close.
pub(crate) fn every_syn_has_the_outcome_that_its_client_saw(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    let agent = attached(guest, &site, ALL_NAMES)?;
    compare_all(guest, &site, &agent, &all_settings())?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// The same through the dearer hooks, which kernels without BTF of modules need.
pub(crate) fn by_kprobes_every_syn_has_the_outcome_that_its_client_saw(
    guest: &Guest,
) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    let agent = attached(guest, &site, &format!("{ALL_NAMES}\nhooks = [\"kprobe\"]"))?;
    compare_all(guest, &site, &agent, &SOME_SETTINGS)?;
    Ok(Verdict::Passed)
}

pub(crate) fn every_syn_of_ipv6_has_the_outcome_that_its_client_saw(
    guest: &Guest,
) -> Result<Verdict> {
    let site = Site::build(guest, Family::V6)?;
    let agent = attached(guest, &site, ALL_NAMES)?;
    compare_all(guest, &site, &agent, &SOME_SETTINGS)?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// Two settings between which each outcome occurs.
const SOME_SETTINGS: [Settings; 2] = [
    Settings::KUBE_PROXY,
    Settings {
        expire_nodest_conn: 0,
        ..Settings::KUBE_PROXY
    },
];

fn all_settings() -> Vec<Settings> {
    let mut all = Vec::new();
    for conntrack in [1, 0] {
        for expire_nodest_conn in [0, 1] {
            all.extend([0, 1, 2].map(|conn_reuse_mode| Settings {
                conn_reuse_mode,
                expire_nodest_conn,
                conntrack,
            }));
        }
    }
    all
}

/// Runs all cells under each of the settings.
fn compare_all(guest: &Guest, site: &Site, agent: &Agent, all: &[Settings]) -> Result<()> {
    let (mut first, mut delayed) = (0, 0);
    for settings in all {
        let mut tries = 0;
        loop {
            let cells = cells(first);
            first += cells.len() as u16;
            let (sights, took) = run(guest, site, agent, *settings, &cells)?;
            delayed += sights.iter().filter(|sight| sight.is_delayed()).count();
            if took < CLOSE_TIMEOUT {
                compare(agent, site, *settings, &cells, &sights)?;
                break;
            }
            tries += 1;
            println!("{settings:?}: {took:?}, so connections were gone before their SYNs");
            ensure!(tries < TRIES, "this machine is too slow: it took {took:?}");
        }
    }
    agent.shows("as many delays as clients had", SOON, |metrics| {
        let shown = metrics.value(DELAYS, &[])?;
        ensure!(shown == delayed as f64, "{shown} delays, {delayed} clients");
        Ok(())
    })
}

/// One cell for each fate of the server and each way to close, on ports of their own.
fn cells(first: u16) -> Vec<Cell> {
    let pairs = FATES
        .into_iter()
        .flat_map(|fate| Close::ALL.map(|close| (fate, close)));
    let cells = pairs.zip(first..).map(|((fate, close), number)| Cell {
        client_port: 20_000 + number,
        service_port: 8_000 + number,
        fate,
        close,
    });
    cells.collect()
}

/// Connects, ends, changes the servers, and comes back, with all cells side by side. What they saw,
/// and the time from the first end to the last SYN.
fn run(
    guest: &Guest,
    site: &Site,
    agent: &Agent,
    settings: Settings,
    cells: &[Cell],
) -> Result<(Vec<Sight>, Duration)> {
    let all = cells
        .iter()
        .map(|cell| cell.service_port)
        .collect::<Vec<_>>();
    let with = |fate| {
        let cells = cells.iter().filter(move |cell| cell.fate == fate);
        cells.map(|cell| cell.service_port).collect::<Vec<_>>()
    };
    let ports = cells
        .iter()
        .map(|cell| (cell.client_port, cell.service_port));
    let ports = ports.collect::<Vec<_>>();
    site.set(guest, settings)?;
    site.add_services(guest, &all)?;
    let connections = connected(site, &ports)?;
    site.add_new_server(guest, &all)?;
    site.drain_old_server(guest, &with(Fate::Drained))?;
    let begun = Instant::now();
    reuse::close_all(
        connections
            .into_iter()
            .zip(cells.iter().map(|cell| cell.close)),
    )?;
    site.remove_old_server(guest, &with(Fate::Removed))?;
    sleep(CLEANED_UP);
    if settings.expire_nodest_conn == 0 {
        agent.shows("it watches the packet hook", SOON, |metrics| {
            let watching = metrics.value(WATCHING, &[])?;
            ensure!(watching == 1.0, "{watching}");
            Ok(())
        })?;
    }
    let met = site.connected_ports(guest)?;
    let take_syns = || -> Result<_> {
        let servers = (site.syns_at(Name::Old)?, site.syns_at(Name::New)?);
        Ok((site.syns()?, servers))
    };
    take_syns()?;
    let answers = site.try_connect_all(&ports, SECOND_SYN)?;
    let took = begun.elapsed();
    let (syns, (at_old, at_new)) = take_syns()?;
    let of = |syns: &BTreeMap<u16, u32>, cell: &Cell| {
        let syns = syns.get(&cell.client_port);
        syns.copied().unwrap_or(0)
    };
    let sights = cells.iter().zip(answers).map(|(cell, answer)| {
        let (at_old, at_new) = (of(&at_old, cell), of(&at_new, cell));
        Ok(Sight {
            met: met.contains(&cell.client_port),
            syns: of(&syns, cell),
            at_old,
            at_new,
            answer: match answer {
                Ok(answer) => answer.map(|connection| (connection.server, Some(connection.took))),
                // 7.3 is seen to reset one of the new connections right after its handshake, about
                // once in five runs (docs/kernels.md). Its SYN was answered all the same.
                Err(error) if is_reset(&error) => {
                    println!("{cell:?}: {error:#}");
                    let server = if at_new > 0 { Name::New } else { Name::Old };
                    Some((server, None))
                }
                Err(error) => return Err(error),
            },
        })
    });
    Ok((sights.collect::<Result<_>>()?, took))
}

/// Whether a connection was made, and reset at once.
fn is_reset(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

impl Sight {
    fn is_delayed(&self) -> bool {
        self.answer.is_some() && self.lost() > 0
    }

    /// SYNs that came to neither server.
    fn lost(&self) -> u32 {
        self.syns - self.at_old - self.at_new
    }

    /// What must have become of the SYNs.
    fn outcomes(&self, fate: Fate) -> Outcomes {
        let mut outcomes = Outcomes::default();
        if !self.met {
            return outcomes;
        }
        if fate == Fate::Drained {
            outcomes.stale_destination = self.at_old;
        }
        match self.answer {
            None => outcomes.dropped_silently = self.lost(),
            // The last SYN finds that the old connection has gone.
            Some(_) if self.is_delayed() => outcomes.dropped = self.lost(),
            Some((Name::New, _)) => outcomes.rescheduled = 1,
            Some((Name::Old, _)) => {}
        }
        outcomes
    }
}

fn compare(
    agent: &Agent,
    site: &Site,
    settings: Settings,
    cells: &[Cell],
    sights: &[Sight],
) -> Result<()> {
    for (cell, sight) in cells.iter().zip(sights) {
        println!("{settings:?} {:?} {:?}: {sight:?}", cell.fate, cell.close);
    }
    agent.shows("each outcome as its client saw it", SOON, |metrics| {
        let mut wrong = Vec::new();
        for (cell, sight) in cells.iter().zip(sights) {
            let counted = Outcomes::of(metrics, site.service(cell.service_port));
            if counted != sight.outcomes(cell.fate) {
                wrong.push(format!("{cell:?}: {sight:?}, counted {counted:?}"));
            }
        }
        ensure!(wrong.is_empty(), "{settings:?}\n{}", wrong.join("\n"));
        Ok(())
    })
}
