//! From a sick kernel to Prometheus, to Alertmanager, to the agent's webhook, to a sysctl, and back:
//! the whole loop, and what those see of it who suffer.
//!
//! Prometheus and Alertmanager are Debian's, on the host, as they are not on the node that is sick.
//! The agent and the fault are in a VM. Nobody but the alert tells the agent to do anything.

mod conntrack;
mod estimation;
mod host;
mod memory;
mod reuse;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::http;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::conntrack::entries;
pub(crate) use self::estimation::pings;
pub(crate) use self::host::{
    it_ends_delays, it_has_memory_ready, it_keeps_entries_few, it_lets_packets_pass,
};
pub(crate) use self::memory::reclaim;
pub(crate) use self::reuse::connections;
use crate::agent::{SOON, verb};

/// What the host tells the guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Arranged {
    /// Where the agent's pages are.
    pages: u16,
    /// Where it takes alerts.
    webhook: u16,
    token: String,
    /// What the alert calls this node.
    node: String,
}

/// How the last treatment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There was none.
    Untreated,
    /// An alert has begun one.
    Treated,
    /// The alert was resolved, so it was undone.
    Undone,
}

/// As on a node that lets alerts have one treatment.
fn start(guest: &Guest, treatment: &str, watch: Duration, settings: &str) -> Result<Process> {
    let arranged: Arranged = guest.input()?;
    let at = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).to_string();
    let (pages, webhook, node) = (at(arranged.pages), at(arranged.webhook), &arranged.node);
    let token = "/tmp/token";
    let mut file = OpenOptions::new();
    file.write(true).create(true).truncate(true).mode(0o600);
    file.open(token)
        .and_then(|mut file| file.write_all(arranged.token.as_bytes()))
        .with_context(|| format!("write {token}"))?;
    let config = "/tmp/nodemedic.toml";
    let watch = watch.as_secs();
    let text = format!(
        "[agent]\nlisten = \"{pages}\"\ninterval = \"1s\"\n\
         [webhook]\nenabled = true\nlisten = \"{webhook}\"\ntoken_file = \"{token}\"\n\
         node_names = [\"{node}\"]\nundo_resolved = true\n\
         [treatment_policy]\nwatch = \"{watch}s\"\n[treatments]\n{treatment} = \"alert\"\n{settings}\n"
    );
    fs::write(config, text).with_context(|| format!("write {config}"))?;
    let agent = guest.start("agent", &mut guest.agent(&["run", "--config", config])?)?;
    let pages = SocketAddr::from((Ipv4Addr::LOCALHOST, arranged.pages));
    eventually(6 * SOON, "the agent is ready", || {
        http::get(pages, "/readyz")
    })?;
    Ok(agent)
}

/// Looks again and again at what sufferers see. The looks that were of one phase from their begin
/// to their end, until the node was treated, is so no more, and there are enough.
fn follow<T>(
    guest: &Guest,
    limit: Duration,
    mut look: impl FnMut() -> Result<T>,
    enough: impl Fn(&[(Phase, T)]) -> bool,
) -> Result<Vec<(Phase, T)>> {
    let deadline = Instant::now() + limit;
    let mut looks = Vec::new();
    let mut before = phase(guest)?;
    loop {
        let seen = look()?;
        let after = phase(guest)?;
        if before == after {
            looks.push((after, seen));
        }
        if after == Phase::Undone && enough(&looks) {
            return Ok(looks);
        }
        ensure!(
            Instant::now() < deadline,
            "the loop is not closed within {limit:?}: {after:?}; {}",
            verb(guest, &["status"])?.stdout
        );
        before = after;
    }
}

/// What was seen in a phase.
fn of<T: Copy>(looks: &[(Phase, T)], phase: Phase) -> Vec<T> {
    let of_phase = looks.iter().filter(|(of, _)| *of == phase);
    of_phase.map(|(_, seen)| *seen).collect()
}

fn phase(guest: &Guest) -> Result<Phase> {
    let courses: Value = serde_json::from_str(&verb(guest, &["status", "--json"])?.ok()?)?;
    let Some(first) = courses.as_array().and_then(|courses| courses.first()) else {
        return Ok(Phase::Untreated);
    };
    ensure!(first["trigger"]["by"] == "alert", "{first}");
    match first["state"].as_str() {
        Some("intended" | "applied" | "confirmed") => Ok(Phase::Treated),
        Some("undone") if first["ending"] == "resolved" => Ok(Phase::Undone),
        _ => anyhow::bail!("the treatment went wrong: {first}"),
    }
}
