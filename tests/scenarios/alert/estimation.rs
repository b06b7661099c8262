//! Pings through a node with thousands of services: quick without them, slow with them, quick while
//! nothing is estimated, and slow again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::ipvs::Services;
use nodemedic_tests::faults::ping::Ways;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::json;

use super::{Phase, follow, of, start};

const SERVICES: u32 = 5_000;

/// Of one look, on each way: 5 s where nothing waits.
const PINGS: u32 = 250;

pub(crate) fn pings(guest: &Guest) -> Result<Verdict> {
    let ways = Ways::build(guest)?;
    guest.modprobe("ip_vs")?;
    // Of the CPU that fares worst.
    let look = || {
        let ways = ways.ping(guest, PINGS)?;
        let slowest = ways.iter().map(|times| times.quantile(0.99));
        slowest.reduce(f64::max).context("there are no CPUs")
    };
    // The first finds no neighbours yet.
    look()?;
    let healthy = [look()?, look()?];
    Services::new(SERVICES).add(guest)?;
    let sick = look()?;
    let agent = start(guest, "run_estimation", Duration::from_secs(30), "")?;
    // As far from healthy as from sick. The agent, which works once a second, and those who ask
    // it take a millisecond or two of the guest's one CPU, which the healthy looks had to
    // themselves.
    let slow = (largest(&healthy)? * sick).sqrt();
    let sick_again = |looks: &[(Phase, f64)]| {
        let again = of(looks, Phase::Undone);
        again.last().is_some_and(|seconds| *seconds > slow)
    };
    let looks = follow(guest, Duration::from_secs(400), look, sick_again)?;
    drop(agent);
    let [treated, again] = [Phase::Treated, Phase::Undone].map(|phase| of(&looks, phase));
    println!("p99, s: healthy {healthy:?}, sick {sick}, treated {treated:?}, again {again:?}");
    ensure!(
        sick > 100.0 * largest(&healthy)?,
        "it was not sick: {sick} s"
    );
    // The look that saw the sysctl change may still have waited for the pass before.
    let treated = treated.into_iter().reduce(f64::min);
    let treated = treated.context("nobody looked while it was treated")?;
    ensure!(treated < slow, "{treated} s while it was treated");
    Ok(Verdict::Measured(json!({
        "healthy": largest(&healthy)?,
        "sick": sick,
        "treated": treated,
        "again": largest(&again)?,
    })))
}

fn largest(seconds: &[f64]) -> Result<f64> {
    let seconds = seconds.iter().copied();
    seconds.reduce(f64::max).context("nobody looked")
}
