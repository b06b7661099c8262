//! The tables that are not of a part of the agent.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::keys::{HOUR, SECOND, count, loopback, settings, shared_help, time, words};

settings! {
    /// The agent itself.
    pub struct Agent as "agent" {
        /// Set the address of the HTTP server; port 0 takes a free port, which the log names. The
        /// pages show addresses of the node's clients: restrict who can reach them before you
        /// listen beyond the loopback.
        listen: SocketAddr = loopback(19_110), flag "--listen ADDR:PORT";
        #[doc = shared_help!(health_listen)]
        health_listen: Option<SocketAddr> = Some(loopback(19_114)),
            flag "--health-listen ADDR:PORT";
        /// List further host names by which browsers and others reach / and /report. Addresses, names
        /// without a dot, and the node's own names always do; /metrics takes any name.
        allowed_hosts: Vec<String> = Vec::new();
        /// Set the time between two readings of all ailments. A scrape shows the last reading and
        /// never starts one.
        interval: Duration = Duration::from_secs(5), in time(SECOND..=HOUR), flag "--interval TIME";
        /// Set the node's name in reports. Empty: the host name.
        node_name: String = String::new(), flag "--node-name NAME";
        /// Limit the time to finish open requests and to detach the probes after SIGTERM or Ctrl-C.
        /// The agent then exits in any case.
        shutdown_timeout: Duration = Duration::from_secs(10),
            in time(Duration::ZERO..=Duration::from_secs(600));
        /// Set the directory of the journal of treatments, the lock against a second agent, and the
        /// control socket. In a container, mount a directory of the host there, or a restarted
        /// agent does not find the journal. Empty: `/run/nodemedic` for root; else `nodemedic` in
        /// `$XDG_RUNTIME_DIR`, or in the directory for temporary files.
        state_dir: PathBuf = PathBuf::new(), flag "--state-dir DIRECTORY";
    }
}

settings! {
    /// What the agent logs to standard error.
    #[derive(Copy)]
    pub struct Log as "log" {
        /// Set the least severe level that the agent logs.
        level: Level = Level::default(), flag "--log-level LEVEL";
        /// Set the format of log records. `text`: lines for people. `json`: one JSON object a line.
        format: Format = Format::default(), flag "--log-format FORMAT";
    }
}

settings! {
    /// What the agent exports at `/metrics`.
    #[derive(Copy)]
    pub struct Metrics as "metrics" {
        /// Limit the series of one scrape. The agent drops further series and counts them in
        /// `nodemedic_series_cut_total`.
        max_series: usize = 5_000, in count(500..=50_000);
        /// Let the kernel count and time each run of every BPF program on this machine, not only
        /// the agent's. Counting costs about 20 ns a run and ends with the agent.
        bpf_stats: bool = false, flag "--bpf-stats";
    }
}

words! {
    /// Importance of a log record.
    #[derive(Default)]
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
    #[derive(Default)]
    pub enum Format {
        /// Lines for people.
        #[default]
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
