//! More services than there is time for, and pings that wait, for `ipvs_estimation`.

use anyhow::Result;
use nodemedic_tests::faults::ipvs::Services;
use nodemedic_tests::faults::ping::{Times, Ways};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::lab::Fault;
use nodemedic_tests::scenario::Verdict;

/// Of one round, on each way: for 5 s where nothing waits.
const PINGS: u32 = 250;

/// Ends only with an error.
pub(crate) fn services(guest: &Guest) -> Result<Verdict> {
    let wanted: Fault = guest.input()?;
    let ways = Ways::build(guest)?;
    guest.modprobe("ip_vs")?;
    let mut agent = super::start(guest, wanted.port)?;
    guest.tell(&summary(&ways.ping(guest, PINGS)?))?;
    guest.tell(&format!("{} services are made", wanted.size))?;
    Services::new(wanted.size).add(guest)?;
    loop {
        guest.tell(&summary(&ways.ping(guest, PINGS)?))?;
        super::ensure_alive(&mut agent)?;
    }
}

fn summary(ways: &[Times]) -> String {
    let times = ways.iter().map(|times| {
        let (mean, worst) = (times.mean() * 1e3, times.worst() * 1e3);
        format!("{mean:.1} ms, at worst {worst:.1} ms")
    });
    let times = times.collect::<Vec<_>>().join("; ");
    format!("pings that each CPU receives: {times}")
}
