//! Pings from outside, on a way for each CPU of the guest that receives them: what the node's users
//! notice of a CPU that is held up.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::guest::{Guest, NetNs};

/// Between two pings on a way, in seconds.
const INTERVAL: f64 = 0.02;

/// Beyond the time that they take where nothing waits.
const SPARE: Duration = Duration::from_secs(120);

/// A network for each CPU, whose packets that CPU receives.
#[derive(Debug)]
pub struct Ways {
    outside: NetNs,
    cpus: u32,
}

/// Round trip times of the pings that one CPU has received, in seconds, shortest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Times(Vec<f64>);

impl Ways {
    pub fn build(guest: &Guest) -> Result<Self> {
        let outside = guest.netns("outside")?;
        let cpus = guest.online_cpus()?;
        for receiving in 0..cpus {
            let (theirs, ours) = (format!("eth{receiving}"), format!("inside{receiving}"));
            outside.connect_to_guest(
                (&theirs, &format!("10.0.{receiving}.2/24")),
                (&ours, &format!("10.0.{receiving}.1/24")),
            )?;
            let mask = 1 << receiving;
            let steering = format!("/sys/class/net/{ours}/queues/rx-0/rps_cpus");
            guest.sh(&format!("echo {mask:x} > {steering}"))?;
        }
        Ok(Self { outside, cpus })
    }

    /// So many on each way, all ways at once, each from a CPU that does not receive it: one that is
    /// held up itself asks later, and sees no delay.
    pub fn ping(&self, guest: &Guest, count: u32) -> Result<Vec<Times>> {
        let log = |receiving| format!("/tmp/ping.{receiving}");
        let ping = |receiving| {
            let sending = (receiving + 1) % self.cpus;
            // By its path: taskset is busybox's, which has a ping of its own.
            format!(
                "taskset -c {sending} /usr/bin/ping -c {count} -i {INTERVAL} 10.0.{receiving}.1 \
                 > {} &\n",
                log(receiving)
            )
        };
        let pings = (0..self.cpus).map(ping).collect::<String>();
        let mut shell = self.outside.command("sh");
        shell.args(["-c", &format!("{pings}wait")]);
        let limit = SPARE + Duration::from_secs_f64(INTERVAL * f64::from(count));
        guest.run(&mut shell, limit)?.ok()?;
        let printed = (0..self.cpus).map(|receiving| {
            let printed = fs::read_to_string(log(receiving)).context("read what ping says")?;
            let times = Times::parse(&printed);
            ensure!(times.0.len() as u32 * 2 > count, "ping says: {printed}");
            Ok(times)
        });
        printed.collect()
    }
}

impl Times {
    /// Of lines like `64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.163 ms`.
    fn parse(printed: &str) -> Self {
        let times = printed.lines().filter_map(|line| {
            let (_, time) = line.split_once(" time=")?;
            let milliseconds = time.strip_suffix(" ms")?.parse::<f64>().ok()?;
            Some(milliseconds / 1e3)
        });
        let mut times = times.collect::<Vec<_>>();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    pub fn worst(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// This part of them took no longer.
    pub fn quantile(&self, part: f64) -> f64 {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        let time = self.0.get(rank.saturating_sub(1));
        time.copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ping_prints_is_read() {
        let printed = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
             64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=645 ms\n\
             64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=0.163 ms\n\
             rtt min/avg/max/mdev = 0.163/322.5/645/322 ms\n";
        assert_eq!(Times::parse(printed), Times(vec![0.000_163, 0.645]));
    }

    #[test]
    fn a_hundredth_took_longer_than_the_99th_percentile() {
        let times = Times((1..=200).map(f64::from).collect());
        assert_eq!(times.quantile(0.99), 198.0);
        assert_eq!(times.quantile(1.0), 200.0);
        assert_eq!((times.worst(), times.mean()), (200.0, 100.5));
    }
}
