//! Armed by pressure: the kernel calls as soon as tasks have waited for too much of a
//! second, and a reading is taken then.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::event::PollFlags;

use super::{Settings, cgroup_triggers::CgroupTriggers, tree::Scanned};
use crate::{
    ailments::poll_thread::PollThread,
    kernel::pressure::{Resource, Trigger},
    model::{Missing, ProbeReport},
    wakeup::WakeUp,
};

const RESOURCES: [Resource; 3] = [Resource::Cpu, Resource::Memory, Resource::Io];

/// The share of a window from which on tasks wait too long, for each resource.
pub(super) type Limits = [(Resource, f64); RESOURCES.len()];

/// The triggers on the node and on cgroups, or why there are none.
#[derive(Debug)]
pub(super) struct PsiTriggers {
    calls: Calls,
    /// Calls for CPUs and disks that [`Self::has_called`] has told of.
    reported: u64,
    node: Result<PollThread, Option<Missing>>,
    cgroups: Option<CgroupTriggers>,
}

/// How often the kernel has called for each resource.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    counts: Arc<[AtomicU64; RESOURCES.len()]>,
    wakeup: WakeUp,
}

impl Calls {
    pub(super) fn new(wakeup: &WakeUp) -> Self {
        Self {
            counts: Arc::default(),
            wakeup: wakeup.clone(),
        }
    }

    /// Has a thread count the calls of these triggers, and ask for a reading.
    pub(super) fn start(&self, name: &str, triggers: Vec<Trigger>) -> anyhow::Result<PollThread> {
        let counted = self.clone();
        PollThread::start(name, triggers, PollFlags::PRI, move |trigger| {
            if let Some(calls) = counted.counts.get(trigger.resource as usize) {
                calls.fetch_add(1, Ordering::Relaxed);
            }
            counted.wakeup.request();
        })
    }
}

impl PsiTriggers {
    /// Sets the triggers at the limits of the verdict; those of cgroups below this root later,
    /// when it is seen which of them wait.
    pub(super) fn new(settings: &Settings, root: Option<PathBuf>, wakeup: &WakeUp) -> Self {
        let calls = Calls::new(wakeup);
        let limits = [settings.cpu_ratio, settings.memory_ratio, settings.io_ratio];
        let limits: [_; RESOURCES.len()] = std::array::from_fn(|i| (RESOURCES[i], limits[i]));
        let node = if settings.triggers {
            let armed = on_node(&limits).and_then(|triggers| calls.start("psi-trigger", triggers));
            armed.map_err(|error| Some(missing(&error)))
        } else {
            Err(None)
        };
        let most = settings.trigger_cgroups as usize;
        let root = root.filter(|_| node.is_ok() && most > 0);
        let cgroups = root.map(|root| CgroupTriggers::new(root, limits, most, calls.clone()));
        Self {
            calls,
            reported: 0,
            node,
            cgroups,
        }
    }

    /// Sets triggers on the cgroups that have waited most lately.
    pub(super) fn follow(&mut self, scanned: &Scanned, window: Duration) {
        if let Some(cgroups) = &mut self.cgroups {
            cgroups.follow(&scanned.cgroups, window);
        }
    }

    /// Cgroups that have triggers of their own.
    pub(super) fn cgroups(&self) -> u64 {
        let armed = self.cgroups.as_ref().map(CgroupTriggers::count);
        armed.unwrap_or(0)
    }

    /// How often the kernel has called for each resource; empty while it does not.
    pub(super) fn calls(&self) -> Vec<(Resource, u64)> {
        if self.node.is_err() {
            return Vec::new();
        }
        let calls = self.calls.counts.iter();
        let calls = calls.map(|calls| calls.load(Ordering::Relaxed));
        RESOURCES.into_iter().zip(calls).collect()
    }

    /// Whether the kernel has called, as tasks wait for CPUs or disks, since this was last
    /// asked.
    pub(super) fn has_called(&mut self) -> bool {
        let calls = self.calls().into_iter();
        let dear = calls.filter(|(resource, _)| *resource != Resource::Memory);
        let calls = dear.map(|(_, calls)| calls).sum();
        calls > std::mem::replace(&mut self.reported, calls)
    }

    /// Rows of the table of probes, unless it is switched off.
    pub(super) fn reports(&self) -> Vec<ProbeReport> {
        let hook = |name: &str| ProbeReport {
            name: name.to_owned(),
            hook: Some("poll".to_owned()),
            missing: Vec::new(),
        };
        let node = match &self.node {
            Ok(_) => Some(hook("trigger")),
            Err(Some(missing)) => Some(ProbeReport::not_measured("trigger", missing)),
            Err(None) => None,
        };
        let refused = self.cgroups.as_ref().and_then(CgroupTriggers::refused);
        let refused = refused.map(|missing| ProbeReport::not_measured("cgroup_trigger", missing));
        node.into_iter().chain(refused).collect()
    }
}

fn on_node(limits: &Limits) -> anyhow::Result<Vec<Trigger>> {
    let triggers = limits.iter();
    let triggers = triggers.map(|(resource, share)| Trigger::on_node(*resource, *share));
    Ok(triggers.collect::<io::Result<_>>()?)
}

fn missing(error: &anyhow::Error) -> Missing {
    Missing {
        what: "triggers on /proc/pressure".to_owned(),
        why: format!("the kernel refuses them: {error:#}"),
        remedy: "run as root with CAP_SYS_RESOURCE, and make /proc/pressure writable; where its files \
                 are read-only for root too, as on Linux 5.10, add CAP_DAC_OVERRIDE; until then nodemedic \
                 sees stalls at the next reading"
            .to_owned(),
    }
}
