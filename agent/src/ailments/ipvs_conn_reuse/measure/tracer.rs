//! Watching the packet hook, which is dear, only while there is something to see.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::maps::{Array, MapData, RingBuf};
use rustix::event::PollFlags;

use super::NamespaceReading;
use crate::{
    ailments::poll_thread::PollThread,
    kernel::bpf::{Object, Probes},
    model::{ProbeReport, ProgramStats},
};

/// The probe that is attached while it can see something: by each tick, and by an poll_thread
/// in between.
pub(super) struct PacketTracer {
    /// Before what it uses.
    _poll_thread: PollThread,
    traced: Arc<Mutex<TracerState>>,
}

/// What tick and poll_thread share.
pub(super) struct TracerState {
    probes: Probes,
    /// Those of the answers to UDP datagrams, which have turns: `udp/turns.rs`.
    answers: Probes,
    tracing: Array<MapData, u64>,
    object: Object,
    /// For how long a removal makes it worth to look.
    lifetime: Duration,
    /// When a destination was last removed: what was before we came is not known.
    removed: Instant,
    /// When the poll_thread last came.
    woken: Option<Instant>,
    /// Destinations of all namespaces at the last look.
    destinations: u64,
}

impl PacketTracer {
    /// Takes the object, as the probe can be attached at any time from now on.
    pub(super) fn new(
        mut object: Object,
        mut probes: Probes,
        mut answers: Probes,
        lifetime: Duration,
    ) -> anyhow::Result<Self> {
        probes.expect();
        answers.expect();
        let tracing = object.take_map("TRACING_ACTIVE")?;
        let changes = object.take_map("CHANGES")?;
        let traced = Arc::new(Mutex::new(TracerState {
            probes,
            answers,
            tracing: tracing.try_into().context("open map TRACING_ACTIVE")?,
            object,
            lifetime,
            removed: Instant::now(),
            woken: None,
            destinations: 0,
        }));
        let changes: RingBuf<MapData> = changes.try_into().context("open map CHANGES")?;
        let poll_thread = PollThread::start("ipvs-changes", vec![changes], PollFlags::IN, {
            let traced = Arc::clone(&traced);
            move |changes| {
                while changes.next().is_some() {}
                if let Err(error) = lock(&traced).poll_thread() {
                    tracing::warn!("the packet hook of IPVS cannot be traced: {error:#}");
                }
            }
        })?;
        Ok(Self {
            _poll_thread: poll_thread,
            traced,
        })
    }

    pub(super) fn reports(&self) -> Vec<ProbeReport> {
        let traced = lock(&self.traced);
        [traced.probes.reports(), traced.answers.reports()].concat()
    }

    pub(super) fn is_on(&self) -> bool {
        lock(&self.traced).probes.is_attached()
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        let traced = lock(&self.traced);
        [traced.probes.stats(), traced.answers.stats()].concat()
    }

    /// Attaches or detaches the probe of answers. Whether it is attached then.
    pub(super) fn trace_answers(&self, is_wanted: bool) -> bool {
        let mut traced = lock(&self.traced);
        let TracerState {
            answers, object, ..
        } = &mut *traced;
        match (is_wanted, answers.is_attached()) {
            (true, false) if answers.can_attach() => answers.attach(object),
            (false, true) => answers.detach(),
            (true, _) | (false, false) => {}
        }
        answers.is_attached()
    }

    /// Attaches or detaches, whichever the state of the node asks for.
    pub(super) fn follow(&self, namespaces: &[NamespaceReading]) -> anyhow::Result<()> {
        lock(&self.traced).follow(namespaces)
    }
}

/// What is shared is whole at each point where a panic could come from.
fn lock(traced: &Mutex<TracerState>) -> MutexGuard<'_, TracerState> {
    traced.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TracerState {
    fn follow(&mut self, namespaces: &[NamespaceReading]) -> anyhow::Result<()> {
        let destinations = namespaces
            .iter()
            .map(|namespace| namespace.scan.destinations)
            .sum();
        if destinations < self.destinations {
            self.removed = Instant::now();
        }
        self.destinations = destinations;
        let lately = |since: Instant| since.elapsed() < self.lifetime;
        let removed = lately(self.removed);
        let wanted = self.woken.is_some_and(lately)
            || namespaces
                .iter()
                .any(|namespace| keeps_connections(namespace, removed));
        match (wanted, self.probes.is_attached()) {
            (true, false) => self.attach(),
            (false, true) => self.detach(),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// A destination was drained or removed just now, and its connections are kept.
    fn poll_thread(&mut self) -> anyhow::Result<()> {
        self.woken = Some(Instant::now());
        if self.probes.is_attached() {
            return Ok(());
        }
        self.attach()
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        if !self.probes.can_attach() {
            return Ok(());
        }
        self.probes.attach(&mut self.object);
        self.tell(self.probes.is_attached())
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        self.tell(false)?;
        self.probes.detach();
        Ok(())
    }

    /// Tells the probes whether all of them are there.
    fn tell(&mut self, tracing: bool) -> anyhow::Result<()> {
        self.tracing
            .set(0, u64::from(tracing), 0)
            .context("write map TRACING_ACTIVE")
    }
}

/// Whether IPVS may keep sending SYNs to a destination of this namespace that is
/// drained, or drop them because it is gone. Where it is set to expire such
/// connections every SYN makes a call that is probed anyway.
fn keeps_connections(namespace: &NamespaceReading, removed: bool) -> bool {
    let expires = namespace
        .settings
        .expire_nodest_conn
        .is_some_and(|on| on != 0);
    !expires && (removed || namespace.scan.drained > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ailments::ipvs_conn_reuse::measure::VsSettings, kernel::ipvs::Scan};

    fn namespace(expire_nodest_conn: Option<u64>, drained: u64) -> NamespaceReading {
        NamespaceReading {
            netns: 1,
            pid: 1,
            scan: Scan {
                services: 1,
                destinations: 2,
                drained,
                complete: true,
                ..Scan::default()
            },
            settings: VsSettings {
                expire_nodest_conn,
                ..VsSettings::default()
            },
        }
    }

    #[test]
    fn the_packet_hook_is_never_traced_where_ipvs_expires_them() {
        for (drained, removed) in [(0, false), (3, false), (0, true), (3, true)] {
            assert!(!keeps_connections(&namespace(Some(1), drained), removed));
        }
    }

    #[test]
    fn it_is_traced_for_what_is_drained_or_gone_and_for_nothing_else() {
        for setting in [Some(0), None] {
            assert!(keeps_connections(&namespace(setting, 1), false));
            assert!(keeps_connections(&namespace(setting, 0), true));
            assert!(!keeps_connections(&namespace(setting, 0), false));
        }
    }
}
