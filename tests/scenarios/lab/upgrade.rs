//! Rolling upgrades, with clients that come back on their old ports, for `ipvs_conn_reuse`.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{Close, Connection, Settings, Site, close_all};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::lab::Fault;
use nodemedic_tests::scenario::Verdict;

const SERVICE: u16 = 80;

/// The ports of clients. Those of an upgrade are not used again for the next ones: IPVS remembers
/// them for two minutes.
const PORTS: Range<u16> = 20_000..60_000;

/// How the clients' old connections have ended, in turn.
const CLOSES: [Close; 4] = [
    Close::ClientFin,
    Close::ServerFin,
    Close::ClientReset,
    Close::ServerReset,
];

/// A first SYN that is dropped is repeated after 1 s, and again after 2 s more.
const PATIENCE: Duration = Duration::from_secs(8);

/// Longer than any handshake takes, and shorter than the wait for a second SYN.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Ends only with an error.
pub(crate) fn upgrade(guest: &Guest) -> Result<Verdict> {
    let wanted: Fault = guest.input()?;
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    // Every client of the last minutes has an entry.
    guest.set_sysctl("net.netfilter.nf_conntrack_max", "262144")?;
    site.add_services(guest, &[SERVICE])?;
    let mut agent = super::start(guest, wanted.port)?;
    let size = u16::try_from(wanted.size).context("too many clients")?;
    let mut first = PORTS.start;
    loop {
        guest.tell(&once(guest, &site, first..first + size)?)?;
        super::ensure_alive(&mut agent)?;
        first += size;
        if first + size > PORTS.end {
            first = PORTS.start;
        }
    }
}

/// Clients connect and end; the server is exchanged; they come back.
fn once(guest: &Guest, site: &Site, clients: Range<u16>) -> Result<String> {
    let pairs = clients.map(|client| (client, SERVICE)).collect::<Vec<_>>();
    let connections = site.connect_all(&pairs, PATIENCE)?.into_iter().flatten();
    close_all(connections.zip(CLOSES.into_iter().cycle()))?;
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    let back = site.connect_all(&pairs, PATIENCE)?;
    let line = summary(&back);
    close_all(back.into_iter().flatten().map(|it| (it, Close::ClientFin)))?;
    site.clear(guest)?;
    site.add_services(guest, &[SERVICE])?;
    Ok(line)
}

fn summary(back: &[Option<Connection>]) -> String {
    let at_once = |connection: &&Connection| connection.took < AT_ONCE;
    let connected = back.iter().flatten().count();
    let quick = back.iter().flatten().filter(at_once).count();
    format!(
        "an upgrade: {} clients came back, {quick} at once, {} after a second or more, {} not at all",
        back.len(),
        connected - quick,
        back.len() - connected
    )
}
