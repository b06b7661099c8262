//! Rolling upgrades whose old servers reset their connections: clients that come back on their
//! ports wait for a second, do not, and do again.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{Close, Settings, Site, close_all};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde::Serialize;
use serde_json::json;

use super::{Phase, follow, of, start};

const SERVICE: u16 = 80;

/// Those of an upgrade are not used again for the next ones: IPVS remembers them for a while.
const PORTS: Range<u16> = 20_000..60_000;

/// Of one upgrade, and of them as many at once as an emulated CPU serves within a second.
const CLIENTS: u16 = 120;
const AT_A_TIME: usize = 30;

/// Between a connection's end and the next one of its port. Conntrack forgets in this time what it
/// is told to keep for a second.
const AWAY: Duration = Duration::from_millis(1_300);

/// A first SYN that is dropped is repeated after 1 s, and again after 2 s more.
const PATIENCE: Duration = Duration::from_secs(8);

/// Longer than any handshake takes, and shorter than the wait for a second SYN.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Connections that the treated node has to have seen; two upgrades, as a slow machine makes not many
/// more before the alert is over.
const ENOUGH: u32 = 240;

/// Clients that came back, and those of them that waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Back {
    clients: u32,
    waited: u32,
}

pub(crate) fn connections(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    guest.set_sysctl("net.netfilter.nf_conntrack_max", "262144")?;
    site.add_services(guest, &[SERVICE])?;
    let mut ports = PORTS.step_by(CLIENTS.into());
    let mut upgrade = |close| {
        let first = ports.next().unwrap_or(PORTS.start);
        upgrade(guest, &site, first..first + CLIENTS, close)
    };
    let healthy = upgrade(Close::ClientFin)?;
    let sick = upgrade(Close::ServerReset)?;
    let settings = "[ailments.ipvs_conn_reuse]\nscan_interval = \"1s\"\nwindow = \"5s\"";
    let agent = start(
        guest,
        "tcp_timeout_close",
        Duration::from_secs(30),
        settings,
    )?;
    let sick_again = |looks: &[(Phase, Back)]| sum(looks, Phase::Undone).waited > 0;
    let limit = Duration::from_secs(400);
    let looks = follow(guest, limit, || upgrade(Close::ServerReset), sick_again)?;
    drop(agent);
    let (treated, again) = (sum(&looks, Phase::Treated), sum(&looks, Phase::Undone));
    println!("healthy {healthy:?}, sick {sick:?}, treated {treated:?}, again {again:?}");
    ensure!(healthy.waited == 0, "healthy: {healthy:?}");
    ensure!(sick.waited > 0, "sick: {sick:?}");
    ensure!(
        treated.clients >= ENOUGH && treated.waited == 0,
        "treated: {treated:?}"
    );
    Ok(Verdict::Measured(json!({
        "healthy": healthy,
        "sick": sick,
        "treated": treated,
        "again": again,
    })))
}

fn sum(looks: &[(Phase, Back)], phase: Phase) -> Back {
    let all = of(looks, phase).into_iter();
    all.fold(Back::default(), |sum, back| Back {
        clients: sum.clients + back.clients,
        waited: sum.waited + back.waited,
    })
}

/// Clients connect and their connections end; the server is exchanged; they come back.
fn upgrade(guest: &Guest, site: &Site, clients: Range<u16>, close: Close) -> Result<Back> {
    let pairs = clients.map(|client| (client, SERVICE)).collect::<Vec<_>>();
    let mut old = Vec::new();
    for some in pairs.chunks(AT_A_TIME) {
        old.extend(site.connect_all(some, PATIENCE)?.into_iter().flatten());
    }
    ensure!(
        old.len() == pairs.len(),
        "nobody answers the first connection"
    );
    close_all(old.into_iter().map(|connection| (connection, close)))?;
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    sleep(AWAY);
    let mut back = Back::default();
    for some in pairs.chunks(AT_A_TIME) {
        let connections = site.connect_all(some, PATIENCE)?.into_iter();
        let connections = connections.collect::<Option<Vec<_>>>();
        let connections = connections.ok_or_else(|| anyhow::anyhow!("nobody answers"))?;
        let waited = connections.iter().filter(|it| it.took > AT_ONCE).count();
        back.clients += connections.len() as u32;
        back.waited += waited as u32;
        close_all(connections.into_iter().map(|it| (it, Close::ClientFin)))?;
    }
    site.clear(guest)?;
    site.add_services(guest, &[SERVICE])?;
    Ok(back)
}
