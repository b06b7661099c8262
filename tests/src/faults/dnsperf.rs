//! Load by dnsperf: each query from a socket, and so a port, of its own, as resolvers in pods ask.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::dns::{RESOLVER, Site};
use crate::guest::Guest;

const QUERIES: &str = "/tmp/queries";

/// A thread of dnsperf opens no more, however many clients it is to be, and then takes them again.
const SOCKETS_OF_A_THREAD: u32 = 256;

/// dnsperf keeps each socket to its end, and needs a few descriptors beside them.
const OTHER_FILES: u32 = 100;

/// For starting and ending, and for answers that do not come.
const SPARE: Duration = Duration::from_secs(60);

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Who asks: an address of [`Site::client`].
    pub source: Ipv4Addr,
    pub queries: u32,
    /// Without it, as many as there are answers for.
    pub per_second: Option<u32>,
}

/// What dnsperf says of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answers {
    pub sent: f64,
    pub completed: f64,
    pub per_second: f64,
}

impl Site {
    /// Nearly every port there is can be the client's: a storm needs many.
    pub fn widen_ports(&self) -> Result<()> {
        let widen = "echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range";
        self.client().sh(widen).map(drop)
    }

    /// Runs dnsperf to its end.
    pub fn dnsperf(&self, guest: &Guest, load: Load) -> Result<Answers> {
        fs::write(QUERIES, "a.test A\n").with_context(|| format!("write {QUERIES}"))?;
        let mut command = self.client().command("sh");
        command.args(["-c", &script(load)]);
        let printed = guest.run(&mut command, length(load) + SPARE)?.ok()?;
        Answers::parse(&printed).with_context(|| format!("dnsperf says: {printed}"))
    }
}

/// One client of dnsperf is one socket; each thread takes its own in turn.
fn script(load: Load) -> String {
    let Load { queries, .. } = load;
    let threads = queries.div_ceil(SOCKETS_OF_A_THREAD);
    let rate = load.per_second.map(|rate| format!("-Q {rate}"));
    format!(
        "ulimit -n {} && exec dnsperf -s {RESOLVER} -a {} -d {QUERIES} -n {queries} -c {queries} \
         -T {threads} -t 2 -l {} {}",
        queries + OTHER_FILES,
        load.source,
        (length(load) + SPARE / 2).as_secs(),
        rate.unwrap_or_default()
    )
}

fn length(load: Load) -> Duration {
    let rate = load.per_second.unwrap_or(load.queries).max(1);
    Duration::from_secs(u64::from(load.queries / rate) + 1)
}

impl Answers {
    fn parse(printed: &str) -> Result<Self> {
        let number = |name: &str| {
            let line = printed.lines().find_map(|line| line.split_once(name));
            let value = line.and_then(|(_, value)| value.split_whitespace().next());
            let value = value.with_context(|| format!("no {name:?}"))?;
            value.parse().with_context(|| format!("{name} {value:?}"))
        };
        Ok(Self {
            sent: number("Queries sent:")?,
            completed: number("Queries completed:")?,
            per_second: number("Queries per second:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_read() {
        let printed = "Statistics:\n\n  Queries sent:         3000\n  \
             Queries completed:    2999 (99.97%)\n  Queries lost:         1 (0.03%)\n\n  \
             Run time (s):         3.002055\n  Queries per second:   999.315469\n";
        let answers = Answers {
            sent: 3000.0,
            completed: 2999.0,
            per_second: 999.315469,
        };
        assert_eq!(Answers::parse(printed).unwrap(), answers);
        assert!(Answers::parse("Killed").is_err());
    }

    #[test]
    fn a_run_is_bounded_in_sockets_and_time() {
        let load = Load {
            source: Ipv4Addr::new(10, 1, 0, 2),
            queries: 1_000,
            per_second: Some(100),
        };
        let script = script(load);
        assert!(script.starts_with("ulimit -n 1100 && "), "{script}");
        assert!(script.contains("-n 1000 -c 1000 -T 4"), "{script}");
        assert!(script.contains("-l 41"), "{script}");
        assert!(script.contains("-Q 100"), "{script}");
    }
}
