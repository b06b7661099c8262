//! `nodemedic sweep`

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use super::exit::Exit;
use crate::{
    ailments::ipvs_conn_reuse::{
        Settings,
        dead::{self, Dead, SweepCounters},
    },
    kernel::conntrack,
    render::print,
};

/// From one pass to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Scan the IPVS connections of the current network namespace once a second, and print the
/// dead connections with a conntrack entry that still makes IPVS drop the next SYN. Nothing
/// is changed without --apply.
///
/// The treatment sweep_dead does the same, reacts faster to resets, verifies its effect, and
/// refuses kernels on which it has none.
#[derive(Debug, Args)]
pub(super) struct Sweep {
    /// Mark the entries reusable, so that IPVS schedules the next SYN of the client at once.
    #[arg(long)]
    apply: bool,
    /// Observe for this time. A FIN of a server counts as unanswered after 3 s.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

impl Sweep {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        ensure!(
            conntrack::netlink_is_there(),
            "{}",
            conntrack::NETLINK_IS_MISSING
        );
        let limits = Settings::default().sweep_limits();
        let counters = Arc::new(SweepCounters::default());
        let mut sweep =
            dead::Sweep::new(limits, self.apply, counters).context("talk to conntrack")?;
        let until = Instant::now() + self.duration;
        let mut found = 0;
        let mut lines = String::new();
        loop {
            let tell = |dead: &Dead| {
                found += 1;
                lines.push_str(&self.line(dead));
            };
            sweep.pass(|| false, tell).context("sweep")?;
            print(&lines)?;
            lines.clear();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(INTERVAL));
        }
        print(&self.summary(found))?;
        Ok(if found == 0 || self.apply {
            Exit::Healthy
        } else {
            Exit::Findings
        })
    }

    fn line(&self, dead: &Dead) -> String {
        let Dead {
            tuple,
            state,
            reason,
        } = dead;
        let deed = if self.apply { "opened" } else { "would open" };
        format!(
            "{deed} {tuple}, {} in conntrack: {}\n",
            state.name(),
            reason.words()
        )
    }

    fn summary(&self, found: usize) -> String {
        match (found, self.apply) {
            (0, _) => "no dead connection is in the way\n".to_owned(),
            (_, true) => format!("{found} opened\n"),
            (_, false) => format!("{found} found; nothing was changed. --apply opens them.\n"),
        }
    }
}
