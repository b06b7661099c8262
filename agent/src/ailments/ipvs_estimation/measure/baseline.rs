//! What procfs says: works on every kernel and without privileges for BPF.

use std::time::Duration;

use anyhow::Context as _;
use ebpf::ipvs_estimation::Context;

use super::{NamespaceReading, Reading, Switches, cost::Cost, threads::Clocks};
use crate::{
    ailments::ipvs_estimation::{
        Settings,
        support::{EST_CPULIST, EST_NICE, Plan, RUN_ESTIMATION},
    },
    kernel::{
        ipvs::{Namespace, Scanner},
        netns::{self, Namespaces},
        sysctl,
    },
};

/// Counts services, and reads what an operator can set.
#[derive(Debug)]
pub(super) struct Baseline {
    context: Option<Context>,
    possible_cpus: Option<u32>,
    online_cpus: Option<u32>,
    namespaces: Namespaces,
    scanner: Scanner,
    clocks: Option<Clocks>,
}

impl Baseline {
    pub(super) fn new(plan: &Plan, settings: &Settings) -> Self {
        let threads = plan.context == Some(Context::Kthread);
        Self {
            context: plan.context,
            possible_cpus: plan.possible_cpus,
            online_cpus: plan.online_cpus,
            namespaces: Namespaces::default(),
            scanner: Scanner::new(settings.scan_interval, settings.scan_timeout),
            clocks: threads.then(Clocks::begin),
        }
    }

    pub(super) fn read(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let netns = netns::own().context("find our own network namespace")?;
        let switches = read_switches()?;
        let scanned = self.scanner.scan(self.namespaces.living());
        let with_switches = |namespace: &Namespace| {
            let within = if namespace.netns == netns {
                switches.clone()
            } else {
                // It may have ended, or not let itself be entered. Few have services.
                let read = netns::within(namespace.pid, read_switches);
                read.ok().and_then(Result::ok).unwrap_or_default()
            };
            NamespaceReading {
                netns: namespace.netns,
                pid: namespace.pid,
                scan: namespace.scan,
                counted: None,
                // A kernel without the switch estimates.
                estimating: match switches.run_estimation {
                    None => Some(true),
                    Some(_) => within.run_estimation,
                },
                est_nice: within.est_nice.and_then(|nice| nice.parse().ok()),
            }
        };
        let mut namespaces: Vec<_> = scanned.iter().map(with_switches).collect();
        namespaces.sort_by_key(|namespace| std::cmp::Reverse(namespace.estimators()));
        Ok(Reading {
            window_seconds: window.as_secs_f64(),
            netns,
            context: self.context,
            possible_cpus: self.possible_cpus,
            online_cpus: self.online_cpus,
            switches,
            namespaces,
            cost: Cost::LITERATURE,
            threads: self.clocks.as_mut().map(Clocks::read),
            probed: None,
        })
    }
}

/// Those of the network namespace that this thread is in.
fn read_switches() -> anyhow::Result<Switches> {
    Ok(Switches {
        run_estimation: sysctl::read_number(RUN_ESTIMATION)?.map(|value| value != 0),
        est_cpulist: sysctl::read(EST_CPULIST)?,
        est_nice: sysctl::read(EST_NICE)?,
    })
}
