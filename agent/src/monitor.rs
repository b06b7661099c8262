//! The tick: has all ailments measured at once, each on a thread that may block,
//! and publishes one report. Front ends read that; none of them starts a reading.

mod changes;
mod slot;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, sleep},
};
use tracing::error;

use self::slot::Slot;
use crate::{
    collector::{Configured, Host},
    identity::Identity,
    metrics,
    model::{About, NodeReport, Reports, Snapshot},
    treatment::TreatmentService,
};

/// From attaching to the first reading: long enough to count something, short
/// enough that nobody has to wait for a whole interval to see that it works.
const FIRST_READING: Duration = Duration::from_secs(1);

/// How long the first report may wait for ailments that attach: there is none before it that could
/// stay, and one more tick would be lost on whoever is late.
const ATTACHING: Duration = Duration::from_secs(5);

/// Has all ailments measured at an interval.
#[derive(Debug)]
pub struct Monitor {
    slots: Vec<Slot>,
    ailments: Vec<About>,
    host: Arc<dyn Host>,
    identity: Identity,
    interval: Duration,
    max_series: usize,
    series_dropped: u64,
    /// Where treatments are begun and ended.
    service: Option<Arc<TreatmentService>>,
    reports: watch::Sender<Option<Snapshot>>,
}

impl Monitor {
    /// Ready to run; nothing is attached yet.
    pub fn new(
        configured: Vec<Configured>,
        host: Arc<dyn Host>,
        identity: Identity,
        interval: Duration,
        max_series: usize,
    ) -> Self {
        Self {
            ailments: configured
                .iter()
                .map(|configured| configured.collector.about())
                .collect(),
            slots: configured.into_iter().map(Slot::new).collect(),
            host,
            identity,
            interval,
            max_series,
            series_dropped: 0,
            service: None,
            reports: watch::Sender::new(None),
        }
    }

    /// Has each report acted upon before it is published.
    pub fn treat_with(&mut self, service: Arc<TreatmentService>) {
        self.service = Some(service);
    }

    /// The ailments, those that are switched off too.
    pub fn ailments(&self) -> &[About] {
        &self.ailments
    }

    /// Where the reports appear.
    pub fn reports(&self) -> Reports {
        self.reports.subscribe()
    }

    /// Attaches, then measures at the interval, and when a probe asks for it, but
    /// not sooner than [`FIRST_READING`] after the last time. Whenever it is dropped, even in the
    /// middle of a tick, [`Self::stop`] still finds all that is attached.
    pub async fn run(&mut self) -> Infallible {
        self.tick_within(self.interval.max(ATTACHING)).await;
        sleep(FIRST_READING.min(self.interval)).await;
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = Instant::now();
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.host.wakeup().requested() => {
                    sleep(FIRST_READING.saturating_sub(last.elapsed())).await;
                    // Two readings close to each other would be of next to nothing.
                    ticks.reset();
                }
            }
            self.tick().await;
        }
    }

    /// Waits for what is under way, and detaches all.
    pub async fn stop(self) {
        for slot in self.slots {
            slot.leave().await;
        }
    }

    async fn tick(&mut self) {
        self.tick_within(self.interval).await;
    }

    async fn tick_within(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for slot in &mut self.slots {
            slot.begin(&self.host);
        }
        let previous = self
            .reports
            .borrow()
            .as_ref()
            .map(|last| Arc::clone(&last.report));
        let mut ailments = Vec::with_capacity(self.slots.len());
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let before = previous.as_ref().map(|report| &report.ailments[i]);
            let report = slot.end(deadline, before).await;
            changes::log(before, &report);
            ailments.push(report);
        }
        let mut report = self.identity.report(ailments, 0);
        report.names = self.host.directory().report();
        let report = self.act(report).await;
        self.publish(report);
    }

    /// Treatments follow from the report, and are part of it.
    async fn act(&self, report: NodeReport) -> NodeReport {
        let Some(service) = self.service.clone() else {
            return report;
        };
        let mut report = Arc::new(report);
        let seen = Arc::clone(&report);
        match spawn_blocking(move || service.step(&seen)).await {
            Ok(stepped) => {
                let report = Arc::make_mut(&mut report);
                report.treatments = stepped.runs;
                report.treatment_trouble = stepped.trouble;
                report.treatment_counts = stepped.counts;
            }
            Err(error) => error!("treatments: {error}"),
        }
        Arc::unwrap_or_clone(report)
    }

    fn publish(&mut self, mut report: NodeReport) {
        self.series_dropped += metrics::cap(&mut report, &self.ailments, self.max_series);
        report.series_dropped = self.series_dropped;
        let snapshot = Snapshot {
            report: Arc::new(report),
            taken: Instant::now(),
        };
        self.reports.send_replace(Some(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::collector::fake::{self, FakeHost};
    use crate::model::{AilmentReport, Coverage, Verdict};

    /// So many slots with one kernel.
    fn monitor(host: &Arc<FakeHost>, collectors: usize, interval: Duration) -> Monitor {
        let configured = |_| Configured {
            enabled: true,
            collector: fake::collector(),
        };
        let configured = (0..collectors).map(configured).collect();
        let host = Arc::clone(host) as Arc<dyn Host>;
        Monitor::new(configured, host, Identity::fake(), interval, 5_000)
    }

    fn ailment(monitor: &Monitor, i: usize) -> AilmentReport {
        let last = monitor.reports.borrow().clone().unwrap();
        last.report.ailments[i].clone()
    }

    /// Ends a test that would wait for ever, however slow the machine.
    const LONG: Duration = Duration::from_secs(300);
    /// For a tick that ends without its collectors, as they hang.
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_tick_is_a_report() {
        let host = Arc::new(FakeHost::default());
        let mut monitor = monitor(&host, 2, LONG);
        monitor.tick().await;
        monitor.tick().await;
        let last = monitor.reports.borrow().clone().unwrap();
        assert_eq!(last.report.verdict(), Verdict::Healthy);
        assert_eq!(last.report.ailments.len(), 2);
    }

    #[tokio::test]
    async fn a_collector_that_is_late_keeps_its_last_report_and_is_counted() {
        let host = Arc::new(FakeHost::default());
        let mut monitor = monitor(&host, 1, LONG);
        monitor.tick().await;
        monitor.tick().await;
        let before = ailment(&monitor, 0);
        let hang = host.hang();
        monitor.interval = SHORT;
        monitor.tick().await;
        monitor.tick().await;
        let late = ailment(&monitor, 0);
        assert_eq!(late.errors.late, 2);
        assert_eq!(late.reading_unix_seconds, before.reading_unix_seconds);
        assert_eq!(late.samples, before.samples);
        drop(hang);
        let back = next_reading(&mut monitor, &before).await;
        assert!(back.errors.late >= 2, "they stay counted");
    }

    /// Ticks until there is another reading than this. A collector that is late is not
    /// waited for, so nobody knows how many ticks that takes.
    async fn next_reading(monitor: &mut Monitor, before: &AilmentReport) -> AilmentReport {
        let next = async {
            loop {
                monitor.tick().await;
                let now = ailment(monitor, 0);
                if now.reading_unix_seconds != before.reading_unix_seconds {
                    return now;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, next).await.expect("another reading")
    }

    #[tokio::test]
    async fn a_collector_that_is_late_to_attach_is_starting() {
        let host = Arc::new(FakeHost::default());
        let _hang = host.hang();
        let mut monitor = monitor(&host, 1, SHORT);
        monitor.tick().await;
        assert_eq!(ailment(&monitor, 0).coverage, Coverage::Starting);
    }

    #[tokio::test]
    async fn a_wakeup_brings_a_reading_before_its_time() {
        let host = Arc::new(FakeHost::default());
        let mut monitor = monitor(&host, 1, LONG);
        let mut reports = monitor.reports();
        let third = async {
            // The one that attaches, and the first reading.
            for _ in 0..2 {
                reports.changed().await.expect("it runs");
            }
            host.wakeup().request();
            reports.changed().await.expect("it runs");
        };
        tokio::select! {
            never = monitor.run() => match never {},
            third = timeout(LONG / 2, third) => third.expect("a third report"),
        }
    }

    #[tokio::test]
    async fn stopping_detaches_all_even_in_the_middle_of_a_tick() {
        let host = Arc::new(FakeHost::default());
        let mut monitor = monitor(&host, 2, LONG);
        monitor.tick().await;
        assert_eq!(host.attached(), 2);
        let hang = host.hang();
        monitor.interval = SHORT;
        monitor.tick().await;
        drop(hang);
        monitor.stop().await;
        assert_eq!(host.attached(), 0);
    }

    #[tokio::test]
    async fn what_the_cap_cuts_is_counted_once_a_tick() {
        let host = Arc::new(FakeHost::default());
        let mut monitor = monitor(&host, 1, LONG);
        monitor.max_series = 0;
        monitor.tick().await;
        monitor.tick().await;
        let cut = |monitor: &Monitor| {
            monitor
                .reports
                .borrow()
                .clone()
                .unwrap()
                .report
                .series_dropped
        };
        let once = cut(&monitor);
        assert!(once > 0);
        assert_eq!(cut(&monitor), once, "looking again changes nothing");
        monitor.tick().await;
        assert_eq!(cut(&monitor), 2 * once);
    }
}
