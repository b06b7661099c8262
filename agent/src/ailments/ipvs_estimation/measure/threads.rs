//! The CPU time of the estimator's threads, `ipvs-e:<generation>:<id>` (ip_vs_est.c,
//! from 6.2 on).

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, getpriority_process};

use super::{LOWEST_NICE, Threads};

/// What their names begin with.
const NAME: &str = "ipvs-e:";

/// Looking at every process of a node costs milliseconds, so it is not done at each
/// tick.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);

/// Follows the threads through their coming and going: a change of `est_nice` or
/// `est_cpulist` makes them anew.
#[derive(Debug)]
pub(super) struct Clocks {
    scanned: Instant,
    /// CPU time of each thread at the last reading, nanoseconds.
    threads: BTreeMap<u32, u64>,
    total_ns: u64,
}

impl Clocks {
    /// Begins to watch: the first reading already tells what has been taken since.
    pub(super) fn begin() -> Self {
        let threads = estimators().map(|pid| (pid, cpu_ns(pid).unwrap_or(0)));
        Self {
            scanned: Instant::now(),
            threads: threads.collect(),
            total_ns: 0,
        }
    }

    /// What the threads have taken. What one takes between its last reading and its
    /// end is not seen.
    pub(super) fn read(&mut self) -> Threads {
        if self.scanned.elapsed() >= SCAN_INTERVAL || self.has_lost_one() {
            self.scan();
        }
        let (mut window_ns, mut yielding_ns) = (0, 0);
        self.threads.retain(|pid, before| {
            let Some(now) = cpu_ns(*pid) else {
                return false;
            };
            let taken = now.saturating_sub(*before);
            window_ns += taken;
            if yields(*pid) {
                yielding_ns += taken;
            }
            *before = now;
            true
        });
        self.total_ns += window_ns;
        Threads {
            threads: self.threads.len() as u32,
            cpu_seconds: self.total_ns as f64 / 1e9,
            window_cpu_seconds: window_ns as f64 / 1e9,
            window_yielding_seconds: yielding_ns as f64 / 1e9,
        }
    }

    /// A new one counts from its own begin.
    fn scan(&mut self) {
        self.scanned = Instant::now();
        for pid in estimators() {
            self.threads.entry(pid).or_insert(0);
        }
    }

    fn has_lost_one(&self) -> bool {
        self.threads.keys().any(|pid| !is_estimator(*pid))
    }
}

fn estimators() -> impl Iterator<Item = u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_estimator(*pid))
}

fn is_estimator(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with(NAME))
}

/// Whether whatever else wants the CPU goes first.
fn yields(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| getpriority_process(Some(pid)) == Ok(LOWEST_NICE))
}

/// The first number of `/proc/<pid>/schedstat`: time on a CPU, nanoseconds.
fn cpu_ns(pid: u32) -> Option<u64> {
    let path = format!("/proc/{pid}/schedstat");
    let schedstat = fs::read_to_string(path).ok()?;
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}
