//! One ailment's state in the tick.

use std::{sync::Arc, time::Instant};

use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::timeout_at,
};
use tracing::warn;

use crate::{
    collector::Configured,
    collector::{Collector, Host},
    model::{About, AilmentReport},
};

/// A collector, and where it is.
#[derive(Debug)]
pub(super) struct Slot {
    about: About,
    state: SlotState,
    /// Ticks that were over before the collector was back.
    late: u64,
}

#[derive(Debug)]
enum SlotState {
    /// Switched off in the configuration.
    Off,
    Waiting(Box<dyn Collector>),
    /// On a thread that may block. `late` since a tick has ended without it.
    AtWork {
        work: JoinHandle<(Box<dyn Collector>, AilmentReport)>,
        late: bool,
    },
    /// Its thread is gone, and it with it.
    Lost {
        why: String,
    },
}

impl Slot {
    pub(super) fn new(Configured { enabled, collector }: Configured) -> Self {
        let about = collector.about();
        let state = if enabled {
            SlotState::Waiting(collector)
        } else {
            SlotState::Off
        };
        Self {
            about,
            state,
            late: 0,
        }
    }

    /// Sets the collector to work, unless it still is.
    pub(super) fn begin(&mut self, host: &Arc<dyn Host>) {
        self.state = match std::mem::replace(&mut self.state, SlotState::Off) {
            SlotState::Waiting(mut collector) => {
                let host = Arc::clone(host);
                let work = spawn_blocking(move || {
                    let report = collector.tick(&*host);
                    (collector, report)
                });
                SlotState::AtWork { work, late: false }
            }
            other => other,
        };
    }

    /// The collector's report. If it takes longer than the tick, that of the tick before.
    ///
    /// A collector that is late already is not waited for: the others' reports must not
    /// be held up by it tick after tick.
    pub(super) async fn end(
        &mut self,
        deadline: Instant,
        before: Option<&AilmentReport>,
    ) -> AilmentReport {
        let mut report = match &mut self.state {
            SlotState::Off | SlotState::Waiting(_) => self.about.off(),
            SlotState::Lost { why } => self.about.failed(why),
            SlotState::AtWork { work, late } => {
                let deadline = if *late { Instant::now() } else { deadline };
                match timeout_at(deadline.into(), work).await {
                    Ok(outcome) => self.back(outcome),
                    Err(_) => self.miss(before),
                }
            }
        };
        report.errors.late = self.late;
        report
    }

    fn back(
        &mut self,
        outcome: Result<(Box<dyn Collector>, AilmentReport), JoinError>,
    ) -> AilmentReport {
        match outcome {
            Ok((collector, report)) => {
                self.state = SlotState::Waiting(collector);
                report
            }
            Err(error) => {
                let why = format!("its thread has ended: {error}");
                let report = self.about.failed(&why);
                self.state = SlotState::Lost { why };
                report
            }
        }
    }

    fn miss(&mut self, before: Option<&AilmentReport>) -> AilmentReport {
        self.late += 1;
        if let SlotState::AtWork { late, .. } = &mut self.state
            && !*late
        {
            *late = true;
            warn!(
                ailment = self.about.name,
                "not done within the tick; its last report stays"
            );
        }
        before.cloned().unwrap_or_else(|| self.about.starting())
    }

    /// Takes the collector out, which detaches its probes; waits if it is at work.
    pub(super) async fn leave(self) {
        let collector = match self.state {
            SlotState::Off | SlotState::Lost { .. } => return,
            SlotState::Waiting(collector) => Some(collector),
            SlotState::AtWork { work, .. } => work.await.ok().map(|(collector, _)| collector),
        };
        // Detaching waits for the kernel. If its thread is gone, so are the probes.
        let _ = spawn_blocking(move || drop(collector)).await;
    }
}
