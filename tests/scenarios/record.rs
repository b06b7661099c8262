//! What the agent knows of a kernel whose modules are loaded and used. No test:
//! `cargo xtask record` keeps it for the agent's unit tests.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::faults::ipvs::Services;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

const MASQUERADE: &str = "iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE";

pub(crate) fn facts(guest: &Guest) -> Result<Verdict> {
    guest.sh(MASQUERADE)?;
    guest.modprobe("nf_conntrack_netlink")?;
    Services::new(1).add(guest)?;
    let mut probes = guest.agent(&["probes", "--facts"])?;
    let printed = guest.run(&mut probes, Duration::from_secs(60))?.ok()?;
    serde_json::from_str(&printed)
        .map(Verdict::Measured)
        .context("read the facts")
}
