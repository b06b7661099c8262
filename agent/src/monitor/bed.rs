//! One ailment's place in the tick.

use std::{sync::Arc, time::Instant};

use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking},
    time::timeout_at,
};
use tracing::warn;

use crate::{
    ailments::{About, Host, Ward},
    config::Case,
    report::AilmentReport,
};

/// A ward, and where it is.
#[derive(Debug)]
pub(super) struct Bed {
    about: About,
    place: Place,
    /// Ticks that were over before the ward was back.
    late: u64,
}

#[derive(Debug)]
enum Place {
    /// Switched off in the configuration.
    Off,
    Waiting(Box<dyn Ward>),
    /// On a thread that may block. `late` since a tick has ended without it.
    AtWork {
        work: JoinHandle<(Box<dyn Ward>, AilmentReport)>,
        late: bool,
    },
    /// Its thread is gone, and it with it.
    Lost {
        why: String,
    },
}

impl Bed {
    pub(super) fn new(Case { enabled, ward }: Case) -> Self {
        let about = ward.about();
        let place = if enabled {
            Place::Waiting(ward)
        } else {
            Place::Off
        };
        Self {
            about,
            place,
            late: 0,
        }
    }

    /// Sets the ward to work, unless it still is.
    pub(super) fn begin(&mut self, host: &Arc<dyn Host>) {
        self.place = match std::mem::replace(&mut self.place, Place::Off) {
            Place::Waiting(mut ward) => {
                let host = Arc::clone(host);
                let work = spawn_blocking(move || {
                    let report = ward.tick(&*host);
                    (ward, report)
                });
                Place::AtWork { work, late: false }
            }
            other => other,
        };
    }

    /// The ward's report. If it takes longer than the tick, that of the tick before.
    ///
    /// A ward that is late already is not waited for: the others' reports must not
    /// be held up by it tick after tick.
    pub(super) async fn end(
        &mut self,
        deadline: Instant,
        before: Option<&AilmentReport>,
    ) -> AilmentReport {
        let mut report = match &mut self.place {
            Place::Off | Place::Waiting(_) => self.about.off(),
            Place::Lost { why } => self.about.failed(why),
            Place::AtWork { work, late } => {
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
        outcome: Result<(Box<dyn Ward>, AilmentReport), JoinError>,
    ) -> AilmentReport {
        match outcome {
            Ok((ward, report)) => {
                self.place = Place::Waiting(ward);
                report
            }
            Err(error) => {
                let why = format!("its thread has ended: {error}");
                let report = self.about.failed(&why);
                self.place = Place::Lost { why };
                report
            }
        }
    }

    fn miss(&mut self, before: Option<&AilmentReport>) -> AilmentReport {
        self.late += 1;
        if let Place::AtWork { late, .. } = &mut self.place
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

    /// Takes the ward out, which detaches its probes; waits if it is at work.
    pub(super) async fn leave(self) {
        let ward = match self.place {
            Place::Off | Place::Lost { .. } => return,
            Place::Waiting(ward) => Some(ward),
            Place::AtWork { work, .. } => work.await.ok().map(|(ward, _)| ward),
        };
        // Detaching waits for the kernel. If its thread is gone, so are the probes.
        let _ = spawn_blocking(move || drop(ward)).await;
    }
}
