//! What the process takes, under the names that all Prometheus clients use.

use std::{fs, path::Path};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

use crate::model::{Sample, metrics};

metrics! {
    pub(super) METRICS:
    /// CPU time of the agent, user and system.
    CPU: Counter = "process_cpu_seconds_total" [];
    /// Open file descriptors of the agent.
    OPEN_FDS: Gauge = "process_open_fds" [];
    /// Limit of open file descriptors of the agent.
    MAX_FDS: Gauge = "process_max_fds" [];
    /// Virtual memory of the agent.
    VIRTUAL_MEMORY: Gauge = "process_virtual_memory_bytes" [];
    /// Resident memory of the agent.
    RESIDENT_MEMORY: Gauge = "process_resident_memory_bytes" [];
    /// Start time of the agent, in seconds since the epoch.
    START_TIME: Gauge = "process_start_time_seconds" [];
    /// Threads of the agent.
    THREADS: Gauge = "process_threads" [];
}

/// This process now. What procfs does not tell is left out.
pub(super) fn samples() -> Vec<Sample> {
    let mut samples = Vec::with_capacity(METRICS.len());
    let mut put = |metric, value: Option<f64>| {
        samples.extend(value.map(|value| Sample::plain(metric, value)));
    };
    let stat = read("/proc/self/stat").and_then(|text| Stat::parse(&text));
    let ticks = clock_ticks_per_second() as f64;
    let boot = read("/proc/stat").and_then(|text| boot_time(&text));
    put(&CPU, stat.map(|stat| stat.cpu_ticks / ticks));
    put(&OPEN_FDS, open_fds());
    put(
        &MAX_FDS,
        getrlimit(Resource::Nofile).current.map(|most| most as f64),
    );
    put(&VIRTUAL_MEMORY, stat.map(|stat| stat.virtual_bytes));
    put(
        &RESIDENT_MEMORY,
        stat.map(|stat| stat.resident_pages * page_size() as f64),
    );
    put(
        &START_TIME,
        boot.zip(stat)
            .map(|(boot, stat)| boot + stat.start_ticks / ticks),
    );
    put(&THREADS, stat.map(|stat| stat.threads));
    samples
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The descriptor that lists the folder is not counted.
fn open_fds() -> Option<f64> {
    let open = fs::read_dir(Path::new("/proc/self/fd")).ok()?.count();
    Some(open.saturating_sub(1) as f64)
}

/// Seconds since the epoch at which the machine was booted, from `/proc/stat`.
fn boot_time(text: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

/// The fields of `/proc/self/stat` that are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    /// Fields are counted from 1 as in proc_pid_stat(5). The second is the name in
    /// parentheses, which may hold spaces and parentheses itself.
    fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<_> = after_name.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let text = "42 (a ) (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22";
        let stat = Stat {
            cpu_ticks: 11.0 + 12.0,
            threads: 17.0,
            start_ticks: 19.0,
            virtual_bytes: 20.0,
            resident_pages: 21.0,
        };
        assert_eq!(Stat::parse(text), Some(stat));
    }

    #[test]
    fn half_a_line_is_nothing() {
        assert_eq!(Stat::parse("42 (a) S 1 2 3"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn every_metric_is_there_on_this_kernel() {
        let names: Vec<_> = samples().iter().map(|sample| sample.metric.name).collect();
        let all: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names, all);
    }
}
