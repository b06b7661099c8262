//! The tables that are not of a part of the agent.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;

use super::{
    declare::{HOUR, SECOND, count, loopback, settings, time, words},
    key::Allowed,
};

settings! {
    /// The agent itself.
    pub struct Agent as "agent" {
        /// Where the HTTP server listens. Port 0 takes a free port; the log says which. The pages
        /// show addresses of the node's clients, so think before you open them to a network.
        listen: SocketAddr = loopback(19_110);
        /// Time from one reading of all ailments to the next. Scrapes show the last reading and
        /// never start one.
        interval: Duration = Duration::from_secs(5), in Agent::INTERVAL;
        /// What reports call this node. Empty: its host name.
        node_name: String = String::new();
        /// How long the answers under way, and the removal of the probes, may take after SIGTERM or
        /// Ctrl-C before the agent exits all the same.
        drain: Duration = Duration::from_secs(10),
            in time(Duration::ZERO..=Duration::from_secs(600));
        /// Directory of the lock that keeps a second agent away. Empty: /run/nodemedic for root,
        /// else nodemedic in $XDG_RUNTIME_DIR, else in the directory for temporary files.
        state_dir: PathBuf = PathBuf::new();
    }
}

settings! {
    /// What the agent writes to standard error.
    #[derive(Copy)]
    pub struct Log as "log" {
        /// The least important records that go to standard error.
        level: Level = Level::default();
        /// Lines for people, or one JSON object a line.
        format: Format = Format::default();
    }
}

settings! {
    /// What it exports.
    #[derive(Copy)]
    pub struct Metrics as "metrics" {
        /// The most series that a scrape has. What is beyond is left out and counted in
        /// nodemedic_series_cut_total.
        max_series: usize = 5_000, in count(500..=50_000);
        /// Have the kernel count and time each run of each BPF program of this machine, not the
        /// agent's alone. It costs some 20 ns a run, and ends with the agent.
        bpf_stats: bool = false;
    }
}

impl Agent {
    /// What `interval` may be; the flag of the command line is held against it too.
    pub const INTERVAL: Allowed = time(SECOND..=HOUR);
}

words! {
    /// Importance of a log record.
    #[derive(Default, ValueEnum)]
    pub enum Level {
        /// Nothing is written.
        Off = "off",
        /// Something does not work.
        Error = "error",
        /// Something works only in part.
        Warn = "warn",
        /// What the agent does.
        #[default]
        Info = "info",
        /// How it does it.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

words! {
    /// Form of a log record.
    #[derive(Default, ValueEnum)]
    pub enum Format {
        /// Lines for people.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
