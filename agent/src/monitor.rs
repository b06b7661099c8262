//! The tick: has all ailments measured at once, each on a thread that may block,
//! and publishes one report. Front ends read that; none of them starts a reading.

mod bed;
mod changes;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, sleep},
};

use self::bed::Bed;
use crate::{
    ailments::{About, Host},
    config::Case,
    identity::Identity,
    metrics,
    report::NodeReport,
};

/// The last report; none before the first.
pub type Reports = watch::Receiver<Option<Snapshot>>;

/// A report and when it was published.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What is known.
    pub report: Arc<NodeReport>,
    /// When the tick ended.
    pub taken: Instant,
}

/// From attaching to the first reading: long enough to count something, short
/// enough that nobody has to wait for a whole interval to see that it works.
const FIRST_READING: Duration = Duration::from_secs(1);

/// Has all ailments measured at an interval.
#[derive(Debug)]
pub struct Monitor {
    beds: Vec<Bed>,
    ailments: Vec<About>,
    host: Arc<dyn Host>,
    identity: Identity,
    interval: Duration,
    max_series: usize,
    series_cut: u64,
    reports: watch::Sender<Option<Snapshot>>,
}

impl Monitor {
    /// Ready to run; nothing is attached yet.
    pub fn new(
        cases: Vec<Case>,
        host: Arc<dyn Host>,
        identity: Identity,
        interval: Duration,
        max_series: usize,
    ) -> Self {
        Self {
            ailments: cases.iter().map(|case| case.ward.about()).collect(),
            beds: cases.into_iter().map(Bed::new).collect(),
            host,
            identity,
            interval,
            max_series,
            series_cut: 0,
            reports: watch::Sender::new(None),
        }
    }

    /// The ailments, those that are switched off too.
    pub fn ailments(&self) -> &[About] {
        &self.ailments
    }

    /// Where the reports appear.
    pub fn reports(&self) -> Reports {
        self.reports.subscribe()
    }

    /// Attaches, then measures at the interval. Whenever it is dropped, even in the
    /// middle of a tick, [`Self::stop`] still finds all that is attached.
    pub async fn run(&mut self) -> Infallible {
        self.tick().await;
        sleep(FIRST_READING.min(self.interval)).await;
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tick().await;
        }
    }

    /// Waits for what is under way, and detaches all.
    pub async fn stop(self) {
        for bed in self.beds {
            bed.leave().await;
        }
    }

    async fn tick(&mut self) {
        let deadline = Instant::now() + self.interval;
        for bed in &mut self.beds {
            bed.begin(&self.host);
        }
        let previous = self
            .reports
            .borrow()
            .as_ref()
            .map(|last| Arc::clone(&last.report));
        let mut ailments = Vec::with_capacity(self.beds.len());
        for (i, bed) in self.beds.iter_mut().enumerate() {
            let before = previous.as_ref().map(|report| &report.ailments[i]);
            let report = bed.end(deadline, before).await;
            changes::log(before, &report);
            ailments.push(report);
        }
        self.publish(self.identity.report(ailments, 0));
    }

    fn publish(&mut self, mut report: NodeReport) {
        self.series_cut += metrics::cap(&mut report, &self.ailments, self.max_series);
        report.series_cut = self.series_cut;
        let snapshot = Snapshot {
            report: Arc::new(report),
            taken: Instant::now(),
        };
        self.reports.send_replace(Some(snapshot));
    }
}
