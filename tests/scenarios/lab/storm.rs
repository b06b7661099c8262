//! A DNS storm, for `udp_conntrack`.

use std::net::Ipv4Addr;
use std::thread;

use anyhow::{Result, bail};
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::faults::dnsperf::Load;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::lab::Fault;
use nodemedic_tests::scenario::Verdict;

/// Those who ask, as pods of a node, and their share of the queries in percent.
const PODS: [(Ipv4Addr, u32); 3] = [
    (Ipv4Addr::new(10, 1, 0, 11), 70),
    (Ipv4Addr::new(10, 1, 0, 12), 20),
    (Ipv4Addr::new(10, 1, 0, 13), 10),
];

/// Of one run of dnsperf, in seconds.
const RUN: u32 = 10;

/// Ends only with an error.
pub(crate) fn storm(guest: &Guest) -> Result<Verdict> {
    let wanted: Fault = guest.input()?;
    let site = Site::build(guest)?;
    site.widen_ports()?;
    site.add_sources(&PODS.map(|(pod, _)| pod))?;
    // On a node it is there if kube-proxy is. With it the agent sees what the entries are.
    guest.modprobe("nf_conntrack_netlink")?;
    let mut agent = super::start(guest, wanted.port)?;
    loop {
        ask(guest, &site, wanted.size)?;
        super::ensure_alive(&mut agent)?;
    }
}

/// All pods at once.
fn ask(guest: &Guest, site: &Site, queries_per_second: u32) -> Result<()> {
    thread::scope(|scope| {
        let pods = PODS.map(|(source, percent)| {
            let rate = (queries_per_second * percent / 100).max(1);
            let load = Load {
                source,
                queries: rate * RUN,
                per_second: Some(rate),
            };
            scope.spawn(move || site.dnsperf(guest, load))
        });
        for pod in pods {
            pod.join().unwrap_or_else(|_| bail!("a pod panicked"))?;
        }
        Ok(())
    })
}
