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
        ipvs::{Namespace, Surveyor},
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
    surveyor: Surveyor,
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
            surveyor: Surveyor::new(settings.census_interval, settings.census_limit),
            clocks: threads.then(Clocks::default),
        }
    }

    pub(super) fn read(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let netns = netns::own().context("find our own network namespace")?;
        let switches = switches()?;
        let surveyed = self.surveyor.survey(self.namespaces.living());
        let with_switch = |namespace: &Namespace| NamespaceReading {
            netns: namespace.netns,
            pid: namespace.pid,
            census: namespace.census,
            counted: None,
            estimating: match switches.run_estimation {
                // A kernel without the switch.
                None => Some(true),
                Some(on) if namespace.netns == netns => Some(on),
                Some(_) => estimating_within(namespace.pid),
            },
        };
        let mut namespaces: Vec<_> = surveyed.iter().map(with_switch).collect();
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

/// The switch of another network namespace, if it can be entered. Few have services.
fn estimating_within(pid: u32) -> Option<bool> {
    let value = netns::within(pid, || sysctl::read_number(RUN_ESTIMATION));
    value.ok()?.ok()?.map(|value| value != 0)
}

fn switches() -> anyhow::Result<Switches> {
    Ok(Switches {
        run_estimation: sysctl::read_number(RUN_ESTIMATION)?.map(|value| value != 0),
        est_cpulist: sysctl::read(EST_CPULIST)?,
        est_nice: sysctl::read(EST_NICE)?,
    })
}
