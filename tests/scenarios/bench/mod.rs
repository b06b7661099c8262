//! What the agent costs. No tests: `cargo xtask bench` runs them, and makes a page of the figures.

mod agent;
mod bpftrace;
mod cgroups;
mod connections;
mod dns;
mod footprint;
mod hooks;
mod passes;
mod scan;
mod scrape;
mod services;
mod sizes;
mod subject;
mod switches;

pub(crate) use self::cgroups::{active_cgroups, many_cgroups};
pub(crate) use self::connections::connections_with_and_without_it;
pub(crate) use self::dns::queries_with_and_without_it;
pub(crate) use self::footprint::memory_and_cpu;
pub(crate) use self::hooks::probes_beside_bpftrace;
pub(crate) use self::passes::passes_beside_bpftrace;
pub(crate) use self::scan::scans;
pub(crate) use self::scrape::scrapes;
pub(crate) use self::services::many_services;
pub(crate) use self::switches::switches_with_and_without_it;

use anyhow::{Context as _, Result};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde::Serialize;

const MAX: &str = "net.netfilter.nf_conntrack_max";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";

fn measured(figures: &impl Serialize) -> Result<Verdict> {
    serde_json::to_value(figures)
        .map(Verdict::Measured)
        .context("write the figures as JSON")
}

/// A table in which nothing of a benchmark is pushed out, and chains are short.
fn enlarge_table(guest: &Guest, entries: u32) -> Result<()> {
    guest.set_sysctl(MAX, &entries.to_string())?;
    guest.set_sysctl(BUCKETS, &entries.to_string())
}

/// Takes all entries away, so that each round finds the table as the one before did.
fn empty_table(guest: &Guest) -> Result<()> {
    guest.sh("conntrack -F 2>/dev/null").map(drop)
}
