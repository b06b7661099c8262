//! A kernel that lets nobody read its memory.

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use crate::agent::{Agent, SOON, verb};

/// Each probe that is missing names the lockdown, and none asks for another kernel; what needs no
/// probe is measured.
pub(crate) fn the_lockdown_is_named_and_the_baseline_stands_in(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.modprobe("nf_conntrack_netlink")?;
    guest.sh(
        "mountpoint -q /sys/kernel/security || mount -t securityfs none /sys/kernel/security",
    )?;
    let probes: Value = serde_json::from_str(&verb(guest, &["probes", "--json"])?.ok()?)?;
    let mut without = 0;
    for ailment in probes.as_array().context("ailments")? {
        for probe in ailment["probes"].as_array().into_iter().flatten() {
            let missing = probe["missing"].to_string();
            // Debian's 5.10 has no types of modules, and the guest no file that says so.
            let has_types = guest.has_btf("nf_conntrack");
            ensure!(!has_types || !missing.contains("use a kernel"), "{probe}");
            ensure!(!missing.contains("unknown func"), "{probe}");
            if probe["hook"].is_null() {
                without += 1;
                ensure!(
                    missing.contains("locked down (confidentiality)")
                        || missing.contains("is not attached")
                        || missing.contains("neither"),
                    "{probe}"
                );
                ensure!(missing.contains("lockdown=integrity"), "{probe}");
            }
        }
    }
    ensure!(without > 0, "nothing is missing: {probes}");
    let agent = Agent::start(guest, "scan_interval = \"1s\"")?;
    site.one_shots(20_000..20_050)?;
    agent.shows("the entries", SOON, |metrics| {
        let entries = metrics.sum("nodemedic_conntrack_entries", &[]);
        ensure!(entries == 50.0, "{entries} entries");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}
