//! A ping from another namespace whose packets one CPU receives, while it runs on another.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use nodemedic_tests::guest::{Guest, NetNs, Process};

/// A hundred a second.
const INTERVAL: &str = "0.01";

pub(super) struct Ping {
    process: Process,
}

/// One packet that came back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Echo {
    /// When it was sent, seconds since the epoch.
    pub(super) began: f64,
    /// How long it took.
    pub(super) seconds: f64,
}

impl Echo {
    pub(super) fn ended(&self) -> f64 {
        self.began + self.seconds
    }
}

/// A namespace outside of the guest. Receive packet steering takes what arrives from there to the
/// CPU `receiving`.
pub(super) fn outside(guest: &Guest, receiving: u64) -> Result<NetNs> {
    let outside = guest.netns("outside")?;
    outside.connect_to_guest(("eth0", "10.0.0.2/24"), ("inside", "10.0.0.1/24"))?;
    let mask = 1 << receiving;
    guest.sh(&format!(
        "echo {mask:x} > /sys/class/net/inside/queues/rx-0/rps_cpus"
    ))?;
    Ok(outside)
}

impl Ping {
    /// Bound to the CPU `sending`, it gets its answers by an interrupt from there.
    pub(super) fn from(guest: &Guest, outside: &NetNs, sending: u64) -> Result<Self> {
        let mut command = outside.command("taskset");
        command.args([
            "-c",
            &sending.to_string(),
            "ping",
            "-D",
            "-i",
            INTERVAL,
            "10.0.0.1",
        ]);
        let process = guest.start("ping", &mut command)?;
        process.wait_for("icmp_seq=1 ", Duration::from_secs(20))?;
        Ok(Self { process })
    }

    /// Ends it, and gives what came back.
    pub(super) fn stop(mut self) -> Result<Vec<Echo>> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(20))?;
        let log = self.process.log();
        let echoes: Vec<_> = log.lines().filter_map(parse).collect();
        let last = log.lines().last().context("ping has said nothing")?;
        ensure!(echoes.len() > 100, "{} echoes; {last}", echoes.len());
        Ok(echoes)
    }
}

/// `[1732492746.123456] 64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.05 ms`
fn parse(line: &str) -> Option<Echo> {
    let (ended, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (_, time) = rest.split_once("time=")?;
    let seconds = time.strip_suffix(" ms")?.parse::<f64>().ok()? / 1e3;
    let began = ended.parse::<f64>().ok()? - seconds;
    Some(Echo { began, seconds })
}
