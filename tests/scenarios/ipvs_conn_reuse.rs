//! `ipvs_conn_reuse`: what the agent counts against what sockets and counters on the wire saw.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::maladies::ipvs::Family;
use nodemedic_tests::maladies::reuse::{self, Close, Connection, Name, Settings, Site};
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;

use crate::agent::{Agent, SOON};

const AILMENT: &str = "ipvs_conn_reuse";

const SERVICE_SYNS: &str = "nodemedic_ipvs_conn_reuse_service_syns_total";
const DELAYS: &str = "nodemedic_ipvs_conn_reuse_delay_seconds_count";
const LOST: &str = "nodemedic_ailment_lost_events_total";

/// As many services as the table has cells.
const ALL_NAMES: &str = "top_services = 1000\nsurvey_interval = \"1s\"";

/// Longer than an answer takes under emulation.
const ANSWER: Duration = Duration::from_secs(10);
/// Between the first repetition of a SYN, after 1 s, and the second, after 3 s.
const SECOND_SYN: Duration = Duration::from_millis(2_500);
/// No repetition comes sooner.
const AT_ONCE: Duration = Duration::from_millis(900);
/// What the kernel does later about connections to a removed destination is done by then.
const CLEANED_UP: Duration = Duration::from_millis(1_500);

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

/// SYNs by outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Outcomes {
    rescheduled: u32,
    dropped: u32,
    dropped_silently: u32,
    stale_destination: u32,
}

/// What a client saw when it came back.
#[derive(Debug)]
struct Sight {
    /// Whether IPVS had a connection of its port.
    met: bool,
    /// SYNs on the wire.
    syns: u32,
    /// Who answered, and after how long.
    answer: Option<(Name, Duration)>,
}

/// All settings x all fates of the server x all ways to close.
pub(crate) fn every_syn_has_the_outcome_that_its_client_saw(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    let agent = attached(guest, &site, ALL_NAMES)?;
    let mut first = 0;
    let mut delayed = 0;
    for conntrack in [1, 0] {
        for expire_nodest_conn in [0, 1] {
            for conn_reuse_mode in [0, 1, 2] {
                let settings = Settings {
                    conn_reuse_mode,
                    expire_nodest_conn,
                    conntrack,
                };
                let cells = cells(first);
                first += cells.len() as u16;
                let sights = run(guest, &site, settings, &cells)?;
                delayed += sights.iter().filter(|sight| sight.is_delayed()).count();
                compare(&agent, &site, settings, &cells, &sights)?;
            }
        }
    }
    agent.shows("as many delays as clients had", SOON, |metrics| {
        let shown = metrics.value(DELAYS, &[])?;
        ensure!(shown == delayed as f64, "{shown} delays, {delayed} clients");
        nothing_is_lost(metrics)
    })?;
    Ok(Verdict::Passed)
}

/// A service that is there from the begin: the ailment waits for the first.
const FIRST_SERVICE: u16 = 7_999;

/// The agent with all its probes. Where IPVS has no types of its own, it first wants to see some
/// new connections.
fn attached(guest: &Guest, site: &Site, settings: &str) -> Result<Agent> {
    site.add_services(guest, &[FIRST_SERVICE])?;
    let agent = Agent::start_for(guest, AILMENT, settings)?;
    let mut client_ports = 10_000..;
    eventually(2 * SOON, "all probes are attached", || {
        let report = agent.report()?;
        if report["coverage"]["state"] == "full" {
            return Ok(());
        }
        if let Some(port) = client_ports.next() {
            let connection = site.connect(port, FIRST_SERVICE, ANSWER)?;
            connection
                .context("nobody answers")?
                .close(Close::ClientFin)?;
        }
        bail!("{} {}", report["coverage"], report["probes"])
    })?;
    Ok(agent)
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

/// Connects, ends, changes the servers, and comes back, with all cells side by side.
fn run(guest: &Guest, site: &Site, settings: Settings, cells: &[Cell]) -> Result<Vec<Sight>> {
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
    reuse::close_all(
        connections
            .into_iter()
            .zip(cells.iter().map(|cell| cell.close)),
    )?;
    site.add_new_server(guest, &all)?;
    site.drain_old_server(guest, &with(Fate::Drained))?;
    site.remove_old_server(guest, &with(Fate::Removed))?;
    sleep(CLEANED_UP);
    let met = site.connected_ports(guest)?;
    site.syns()?;
    let answers = site.connect_all(&ports, SECOND_SYN)?;
    let syns = site.syns()?;
    let sights = cells.iter().zip(&answers).map(|(cell, answer)| Sight {
        met: met.contains(&cell.client_port),
        syns: syns.get(&cell.client_port).copied().unwrap_or(0),
        answer: answer
            .as_ref()
            .map(|connection| (connection.server, connection.took)),
    });
    Ok(sights.collect())
}

/// The first connections, all to the old server.
fn connected(site: &Site, ports: &[(u16, u16)]) -> Result<Vec<Connection>> {
    let answers = site.connect_all(ports, ANSWER)?.into_iter();
    let connections = answers.collect::<Option<Vec<_>>>();
    let connections = connections.context("nobody answers the first connection")?;
    let old = connections
        .iter()
        .all(|connection| connection.server == Name::Old);
    ensure!(old, "the new server answers before it is there");
    Ok(connections)
}

impl Sight {
    fn is_delayed(&self) -> bool {
        self.answer.is_some_and(|(_, took)| took > AT_ONCE) && self.syns > 1
    }

    /// What must have become of the SYNs.
    fn outcomes(&self, fate: Fate) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let is_drained = u32::from(fate == Fate::Drained);
        match self.answer {
            _ if !self.met => {}
            None => outcomes.dropped_silently = self.syns,
            Some((Name::Old, _)) => outcomes.stale_destination = self.syns * is_drained,
            // The last SYN finds that the old connection has gone.
            Some((Name::New, _)) if self.is_delayed() => outcomes.dropped = self.syns - 1,
            // With more than one, the old server knew the connection still, and said so: the
            // client reset it, and tried again at once.
            Some((Name::New, _)) => {
                outcomes.rescheduled = 1;
                outcomes.stale_destination = (self.syns - 1) * is_drained;
            }
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
            let counted = counted(metrics, &site.service(cell.service_port).to_string());
            if counted != sight.outcomes(cell.fate) {
                wrong.push(format!("{cell:?}: {sight:?}, counted {counted:?}"));
            }
        }
        ensure!(wrong.is_empty(), "{settings:?}\n{}", wrong.join("\n"));
        Ok(())
    })
}

fn counted(metrics: &Metrics, service: &str) -> Outcomes {
    let of = |outcome| {
        let labels = [("service", service), ("outcome", outcome)];
        metrics.sum(SERVICE_SYNS, &labels) as u32
    };
    Outcomes {
        rescheduled: of("rescheduled"),
        dropped: of("dropped"),
        dropped_silently: of("dropped_silently"),
        stale_destination: of("stale_destination"),
    }
}

fn nothing_is_lost(metrics: &Metrics) -> Result<()> {
    let lost = metrics.select(LOST, &[("ailment", AILMENT)]);
    let lost = lost
        .filter(|sample| sample.value != 0.0)
        .collect::<Vec<_>>();
    ensure!(lost.is_empty(), "events are lost: {lost:?}");
    Ok(())
}
