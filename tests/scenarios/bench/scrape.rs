//! What a scrape takes, of the agent and of whoever asks.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};
use nodemedic_tests::bench::figures::{Page, Scrape};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use nodemedic_tests::usage;

use super::agent::Agent;
use super::{enlarge_table, measured};
use crate::agent::SOON;

const SCRAPES: u32 = 30;

/// More flows than are shown: sources by ports. The last bytes of their addresses.
const SOURCES: Range<u8> = 20..240;
const PORTS: u16 = 5;

/// The most flows that can be configured.
const SHOWN: u64 = 1_000;

pub(crate) fn scrapes(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    enlarge_table(guest, 65_536)?;
    let config = format!("[ailments.udp_conntrack]\ntop_flows = {SHOWN}\n");
    let agent = Agent::start(guest, &config)?;
    let quiet = page(&agent)?;
    flows(&site)?;
    eventually(2 * SOON, "the page shows the flows", || {
        let shown = series(&agent.scrape()?);
        ensure!(shown >= SHOWN, "{shown} series");
        Ok(())
    })?;
    let full = page(&agent)?;
    measured(&Scrape {
        pages: vec![quiet, full],
    })
}

fn flows(site: &Site) -> Result<()> {
    let sources = SOURCES.map(|last| Ipv4Addr::new(10, 1, 0, last));
    let sources = sources.collect::<Vec<_>>();
    site.add_sources(&sources)?;
    for source in sources {
        site.knock(source, 1_000..1_000 + PORTS)?;
    }
    Ok(())
}

fn page(agent: &Agent) -> Result<Page> {
    let text = agent.scrape()?;
    let before = usage::cpu(agent.id())?;
    let mut seconds = Vec::new();
    for _ in 0..SCRAPES {
        let begin = Instant::now();
        agent.scrape()?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let cpu = usage::cpu(agent.id())?.saturating_sub(before);
    Ok(Page {
        series: series(&text),
        bytes: text.len() as u64,
        seconds,
        cpu_seconds: (cpu / SCRAPES).as_secs_f64(),
    })
}

fn series(page: &str) -> u64 {
    let lines = page.lines();
    lines.filter(|line| !line.starts_with('#')).count() as u64
}
