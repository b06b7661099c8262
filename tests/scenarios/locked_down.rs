//! A kernel that lets nobody read its memory.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use crate::agent::{Agent, SOON, verb};

/// Each probe that is missing names the lockdown in a sentence, and none asks for another kernel.
/// Where the kernel can give a type to an address, all probes are there. A lockdown file that
/// cannot be read changes neither.
pub(crate) fn what_cannot_be_had_is_named_and_the_rest_is_measured(
    guest: &Guest,
) -> Result<Verdict> {
    const SECURITYFS: &str = "/sys/kernel/security";
    let site = Site::build(guest)?;
    guest.modprobe("nf_conntrack_netlink")?;
    // A guest that has just booted has not mounted it.
    guest.sh(&format!("umount {SECURITYFS} 2> /dev/null || true"))?;
    // Of a kernel without types of modules the words of the verifier do not tell.
    let unread = guest.has_btf("nf_conntrack");
    let unread = (unread.then(|| names_the_lockdown(guest, "locked down"))).transpose()?;
    guest.sh(&format!("mount -t securityfs none {SECURITYFS}"))?;
    let without = names_the_lockdown(guest, "the kernel is locked down to confidentiality: ")?;
    ensure!(
        unread.is_none_or(|unread| unread == without),
        "{unread:?} are missing, then {without}"
    );
    let symbols = fs::read_to_string("/proc/kallsyms").context("read the symbols")?;
    let has_cast = (symbols.lines()).any(|line| line.ends_with(" bpf_rdonly_cast"));
    ensure!((without == 0) == has_cast, "{without} are missing");
    let agent = Agent::start(guest, "scan_interval = \"1s\"")?;
    site.one_shots(20_000..20_050)?;
    agent.shows("the entries", SOON, |metrics| {
        let entries = metrics.sum("nodemedic_conntrack_entries", &[]);
        ensure!(entries == 50.0, "{entries} entries");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// How many probes are missing, each of them with these words.
fn names_the_lockdown(guest: &Guest, words: &str) -> Result<usize> {
    let probes: Value = serde_json::from_str(&verb(guest, &["probes", "--json"])?.ok()?)?;
    let mut without = 0;
    for ailment in probes.as_array().context("ailments")? {
        for probe in ailment["probes"].as_array().into_iter().flatten() {
            let missing = probe["missing"].to_string();
            // Debian's 5.10 has no types of modules, and the guest no file that says so.
            let has_types = guest.has_btf("nf_conntrack");
            ensure!(!has_types || !missing.contains("use a kernel"), "{probe}");
            for word in ["unknown func", "the verifier"] {
                ensure!(!missing.contains(word), "{probe}");
            }
            if probe["hook"].is_null() {
                without += 1;
                ensure!(
                    missing.contains(words)
                        || missing.contains("is not attached")
                        || missing.contains("neither"),
                    "{probe}"
                );
            }
        }
    }
    Ok(without)
}
