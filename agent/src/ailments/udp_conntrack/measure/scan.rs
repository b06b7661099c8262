//! Scans of the whole table, now and then.

use std::time::{Duration, Instant, SystemTime};

use crate::{
    ailments::udp_conntrack::{
        Settings,
        support::{NETLINK_MODULE, Scans},
    },
    kernel::{
        conntrack::{self, Snapshot},
        modules,
    },
    model::{Missing, ProbeReport},
    time::unix_seconds,
};

/// A scan may take this part of the time, so that it costs half a percent of one
/// CPU at the most.
const SHARE: u32 = 200;

/// Takes scans when they are due, and keeps the last.
#[derive(Debug)]
pub(super) struct Scanner {
    interval: Duration,
    limit: Duration,
    when: Result<Scans, Missing>,
    /// The error of the last try, if it failed.
    failure: Option<String>,
    /// The last scan and when it ended, seconds since the epoch.
    last: Option<(f64, Snapshot)>,
    next: Instant,
}

impl Scanner {
    pub(super) fn new(settings: &Settings, when: &Result<Scans, Missing>) -> Self {
        Self {
            interval: settings.scan_interval,
            limit: settings.scan_timeout,
            when: when.clone(),
            failure: None,
            last: None,
            next: Instant::now(),
        }
    }

    /// Scans the table if it is time to, and possible.
    pub(super) fn scan_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next || self.hindrance().is_some() {
            return;
        }
        let cost = match conntrack::snapshot(self.limit) {
            Ok(snapshot) => {
                let cost = Duration::from_secs_f64(snapshot.seconds);
                self.last = Some((unix_seconds(SystemTime::now()), snapshot));
                self.failure = None;
                cost
            }
            Err(error) => {
                self.failure = Some(error.to_string());
                Duration::ZERO
            }
        };
        self.next = now + self.interval.max(cost * SHARE);
    }

    /// The last scan and when it ended, seconds since the epoch.
    pub(super) fn last(&self) -> Option<&(f64, Snapshot)> {
        self.last.as_ref()
    }

    /// A row of the table of probes.
    pub(super) fn report(&self) -> ProbeReport {
        let missing = self.hindrance().or_else(|| self.failed());
        let hook = missing.is_none().then(|| "ctnetlink".to_owned());
        ProbeReport {
            name: "table_scan".to_owned(),
            hook,
            missing: missing.into_iter().collect(),
        }
    }

    /// Why no scan is taken now.
    fn hindrance(&self) -> Option<Missing> {
        if self.interval.is_zero() {
            return Some(missing(
                "they are switched off in the configuration".to_owned(),
                "set `scan_interval`".to_owned(),
            ));
        }
        match &self.when {
            Err(missing) => Some(missing.clone()),
            Ok(Scans::WhileLoaded) if modules::instance(NETLINK_MODULE).is_none() => Some(missing(
                format!("module {NETLINK_MODULE} is not loaded, and the agent loads no module"),
                format!("modprobe {NETLINK_MODULE}"),
            )),
            Ok(Scans::Always | Scans::WhileLoaded) => None,
        }
    }

    fn failed(&self) -> Option<Missing> {
        let error = self.failure.as_ref()?;
        let remedy = "run as root in the host's network namespace".to_owned();
        Some(missing(error.clone(), remedy))
    }
}

fn missing(why: String, remedy: String) -> Missing {
    Missing {
        what: "scans of the table (ctnetlink)".to_owned(),
        why,
        remedy,
    }
}
