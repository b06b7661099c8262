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
        dead::{self, Dead, Tally},
    },
    kernel::conntrack,
    render::print,
};

/// From one pass to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Goes through the connections of IPVS in the network namespace that it is run in, once a
/// second, and prints those that are dead while conntrack still keeps them from making
/// room for the next. Nothing is changed without --apply.
///
/// The treatment sweep_dead does the same, sooner after a reset, watches whether it helps,
/// and refuses on kernels where it does not.
#[derive(Debug, Args)]
pub(super) struct Sweep {
    /// Open the entries, so that the next SYN of the same client is scheduled at once.
    #[arg(long)]
    apply: bool,
    /// For how long. A server's FIN that nobody answers is waited for for 3 s.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
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
        let tally = Arc::new(Tally::default());
        let mut sweep = dead::Sweep::new(limits, self.apply, tally).context("talk to conntrack")?;
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
