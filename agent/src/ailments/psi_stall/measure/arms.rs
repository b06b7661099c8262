//! Armed by pressure: the kernel calls as soon as tasks have waited for too much of a
//! second, and a reading is taken then.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::event::PollFlags;

use super::Settings;
use crate::{
    ailments::alarm::Alarm,
    bell,
    kernel::pressure::{Resource, Trigger},
    report::{Missing, ProbeReport},
};

const RESOURCES: [Resource; 3] = [Resource::Cpu, Resource::Memory, Resource::Io];

/// The triggers on the node, or why there is none.
#[derive(Debug)]
pub(super) struct Arms {
    armed: Result<(Alarm, Arc<[AtomicU64; RESOURCES.len()]>), Option<Missing>>,
}

impl Arms {
    /// Sets the triggers at the limits of the verdict.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            armed: if settings.armed {
                arm(settings).map_err(|error| Some(missing(&error)))
            } else {
                Err(None)
            },
        }
    }

    /// How often the kernel has called for each resource; empty while it does not.
    pub(super) fn calls(&self) -> Vec<(Resource, u64)> {
        let Ok((_, calls)) = &self.armed else {
            return Vec::new();
        };
        let calls = calls.iter().map(|calls| calls.load(Ordering::Relaxed));
        RESOURCES.into_iter().zip(calls).collect()
    }

    /// A row of the table of probes, unless it is switched off.
    pub(super) fn report(&self) -> Option<ProbeReport> {
        match &self.armed {
            Ok(_) => Some(ProbeReport {
                name: "trigger".to_owned(),
                hook: Some("poll".to_owned()),
                missing: Vec::new(),
            }),
            Err(missing) => Some(ProbeReport::not_measured("trigger", missing.as_ref()?)),
        }
    }
}

fn arm(settings: &Settings) -> anyhow::Result<(Alarm, Arc<[AtomicU64; RESOURCES.len()]>)> {
    let limits = [settings.cpu_ratio, settings.memory_ratio, settings.io_ratio];
    let triggers = RESOURCES
        .into_iter()
        .zip(limits)
        .map(|(resource, share)| Trigger::on_node(resource, share));
    let triggers = triggers.collect::<io::Result<Vec<_>>>()?;
    let calls: Arc<[AtomicU64; RESOURCES.len()]> = Arc::default();
    let counted = Arc::clone(&calls);
    let alarm = Alarm::start("psi-trigger", triggers, PollFlags::PRI, move |trigger| {
        if let Some(calls) = counted.get(trigger.resource as usize) {
            calls.fetch_add(1, Ordering::Relaxed);
        }
        bell::ring();
    })?;
    Ok((alarm, calls))
}

fn missing(error: &anyhow::Error) -> Missing {
    Missing {
        what: "triggers on /proc/pressure".to_owned(),
        why: format!("the kernel refuses them: {error:#}"),
        remedy: "run as root with CAP_SYS_RESOURCE, and let /proc/pressure be writable; stalls \
                 are seen at each reading until then"
            .to_owned(),
    }
}
