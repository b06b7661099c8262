//! What the users of DNS notice.

use anyhow::Result;
use nodemedic_tests::bench::figures::Dns;
use nodemedic_tests::faults::dns::{CLIENT, Site};
use nodemedic_tests::faults::dnsperf::Load;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::{empty_table, enlarge_table, measured};

const ROUNDS: usize = 2;

/// They take long enough for the agent to take a reading meanwhile.
const QUERIES: u32 = 20_000;

/// As many queries as get answers, each for an entry of its own.
pub(crate) fn queries_with_and_without_it(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    site.widen_ports()?;
    enlarge_table(guest, 65_536)?;
    guest.modprobe("nf_conntrack_netlink")?;
    round(guest, &site)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(round(guest, &site)?);
        let agent = Agent::start(guest, "")?;
        with.push(round(guest, &site)?);
        agent.stop()?;
    }
    measured(&Dns {
        queries: QUERIES,
        without,
        with,
    })
}

/// Queries a second.
fn round(guest: &Guest, site: &Site) -> Result<f64> {
    empty_table(guest)?;
    let load = Load {
        source: CLIENT,
        queries: QUERIES,
        per_second: None,
    };
    Ok(site.dnsperf(guest, load)?.per_second)
}
