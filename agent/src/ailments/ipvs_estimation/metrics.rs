//! The ailment's metrics: the only definition of each, and how a reading fills them.

use ebpf::ipvs_estimation::{Context, UNIT_NS};

use super::{
    Reading,
    measure::{NamespaceReading, ProbedReading},
};

use crate::model::{Sample, metrics};

/// Namespaces whose estimators are shown one by one; the rest is `other`.
const MAX_NAMESPACES: usize = 20;

metrics! {
    pub(super) ALL:
    /// Time that one pass of the IPVS estimator held its CPU, by context. A pass covers all
    /// estimators of a network namespace in the timer softirq (up to Linux 6.1) or on a workqueue,
    /// and one chain of them in a kthread.
    DURATION: Histogram = "nodemedic_ipvs_estimation_duration_seconds" ["context"];
    /// The longest pass since the last reading; 0 without a pass.
    LONGEST: Gauge = "nodemedic_ipvs_estimation_longest_seconds" [];
    /// Time that receive softirqs waited because of a pass, while tracing is active.
    RX_WAIT: Histogram = "nodemedic_ipvs_estimation_rx_wait_seconds" [];
    /// Time that a task could not run because a slow pass interrupted it or held the CPU of its
    /// wake-up, while tracing is active.
    TASK_WAIT: Histogram = "nodemedic_ipvs_estimation_task_wait_seconds" [];
    /// 1 while the tracepoints on waiting packets and tasks are attached, which is while passes are
    /// slow, else 0.
    TRACING_ACTIVE: Gauge = "nodemedic_ipvs_estimation_tracing_active" [];
    /// Estimators, one for each service and destination and one for the total, by network namespace
    /// with services.
    ESTIMATORS: Gauge = "nodemedic_ipvs_estimation_estimators" ["netns"];
    /// IPVS services of all network namespaces with a process.
    SERVICES: Gauge = "nodemedic_ipvs_estimation_services" [];
    /// Destinations of IPVS services in all network namespaces, by state: with weight 0 a
    /// destination gets no new connections.
    DESTINATIONS: Gauge = "nodemedic_ipvs_estimation_destinations" ["state"];
    /// 1 while IPVS rate estimation is on in a network namespace, 0 while it is off and the
    /// statistics of IPVS are frozen; absent if unknown.
    ENABLED: Gauge = "nodemedic_ipvs_estimation_enabled" ["netns"];
    /// Possible CPUs. A pass visits each once for each estimator.
    POSSIBLE_CPUS: Gauge = "nodemedic_ipvs_estimation_possible_cpus" [];
    /// Time that one estimator takes for one possible CPU.
    COST: Gauge = "nodemedic_ipvs_estimation_visit_seconds" [];
    /// 1 if nodemedic_ipvs_estimation_visit_seconds was measured on this node, 0 if it is the value
    /// from the kernel's mailing list.
    CALIBRATED: Gauge = "nodemedic_ipvs_estimation_calibrated" [];
    /// Predicted time that the estimator of the largest network namespace needs every two seconds:
    /// in one piece in the timer softirq, in short pieces in a kthread; 0 while rate estimation is
    /// off.
    PREDICTED: Gauge = "nodemedic_ipvs_estimation_predicted_seconds" [];
    /// CPU time of the estimator: of its kthreads where it has them, else of all passes.
    CPU_SECONDS: Counter = "nodemedic_ipvs_estimation_cpu_seconds_total" [];
    /// Kthreads of the estimator (Linux 6.2 and later).
    THREADS: Gauge = "nodemedic_ipvs_estimation_threads" [];
}

/// The reading as series.
pub(super) fn samples(reading: &Reading) -> Vec<Sample> {
    let predicted = reading.longest_predicted();
    let mut samples = vec![
        Sample::plain(&COST, reading.cost.ns / 1e9),
        Sample::plain(&CALIBRATED, flag(reading.cost.calibrated)),
        Sample::plain(&PREDICTED, predicted.map_or(0.0, |(_, seconds)| seconds)),
    ];
    samples.extend(
        reading
            .possible_cpus
            .map(|cpus| Sample::plain(&POSSIBLE_CPUS, f64::from(cpus))),
    );
    samples.extend(poll(reading));
    samples.extend(enabled(reading));
    samples.extend(cpu_seconds(reading).map(|seconds| Sample::plain(&CPU_SECONDS, seconds)));
    samples.extend(
        reading
            .threads
            .map(|threads| Sample::plain(&THREADS, f64::from(threads.threads))),
    );
    if let Some(probed) = &reading.probed {
        samples.extend(self::probed(probed, reading.context));
    }
    samples
}

fn poll(reading: &Reading) -> Vec<Sample> {
    let namespaces = &reading.namespaces;
    let shown = namespaces.len().min(MAX_NAMESPACES);
    let mut samples: Vec<_> = namespaces[..shown]
        .iter()
        .map(|it| Sample::number(&ESTIMATORS, [it.netns.to_string()], it.estimators() as f64))
        .collect();
    if namespaces.len() > shown {
        let rest: u64 = namespaces[shown..].iter().map(|it| it.estimators()).sum();
        samples.push(Sample::number(&ESTIMATORS, ["other"], rest as f64));
    }
    let sum = |of: fn(&NamespaceReading) -> u64| namespaces.iter().map(of).sum::<u64>() as f64;
    let drained = sum(|it| it.scan.drained);
    let destinations = sum(NamespaceReading::destinations);
    samples.extend([
        Sample::plain(&SERVICES, sum(NamespaceReading::services)),
        Sample::number(&DESTINATIONS, ["serving"], destinations - drained),
        Sample::number(&DESTINATIONS, ["drained"], drained),
    ]);
    samples
}

fn enabled(reading: &Reading) -> Vec<Sample> {
    let known = reading.namespaces.iter().take(MAX_NAMESPACES);
    known
        .filter_map(|namespace| {
            let on = flag(namespace.estimating?);
            Some(Sample::number(&ENABLED, [namespace.netns.to_string()], on))
        })
        .collect()
}

fn cpu_seconds(reading: &Reading) -> Option<f64> {
    let threads = reading.threads.map(|threads| threads.cpu_seconds);
    threads.or_else(|| Some(reading.probed.as_ref()?.passes.seconds))
}

fn probed(probed: &ProbedReading, context: Option<Context>) -> Vec<Sample> {
    let longest = probed.longest.map_or(0.0, |longest| longest.seconds);
    let mut samples = vec![
        Sample::number(
            &DURATION,
            [context.unwrap_or(Context::Softirq).name()],
            probed.passes.histogram(UNIT_NS),
        ),
        Sample::plain(&LONGEST, longest),
    ];
    // Nobody waits for a thread that gives way.
    if context != Some(Context::Kthread) {
        samples.push(Sample::plain(&TRACING_ACTIVE, flag(probed.tracing)));
        for (metric, waits) in [
            (&RX_WAIT, &probed.rx_waits),
            (&TASK_WAIT, &probed.task_waits),
        ] {
            samples.push(Sample::plain(metric, waits.histogram(UNIT_NS)));
        }
    }
    samples
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MetricDef, MetricValue};
    use crate::{
        ailments::{
            durations::Durations,
            ipvs_estimation::measure::{Cost, Recent, Switches},
        },
        kernel::ipvs::Scan,
    };

    fn namespace(netns: u32, services: u64) -> NamespaceReading {
        NamespaceReading {
            netns,
            pid: 1,
            scan: Scan {
                services,
                destinations: 2 * services,
                drained: 1,
                complete: true,
                ..Scan::default()
            },
            counted: None,
            estimating: Some(true),
            est_nice: None,
        }
    }

    fn reading(context: Context) -> Reading {
        let durations = Durations {
            buckets: vec![1, 0, 2, 4],
            seconds: 0.1,
        };
        Reading {
            window_seconds: 5.0,
            netns: 7,
            context: Some(context),
            possible_cpus: Some(4),
            online_cpus: Some(4),
            switches: Switches::default(),
            namespaces: vec![namespace(7, 100)],
            cost: Cost::LITERATURE,
            threads: None,
            probed: Some(ProbedReading {
                passes: durations.clone(),
                window_passes: 1,
                longest: None,
                rx_waits: durations.clone(),
                task_waits: durations,
                recent: Recent::default(),
                tracing: true,
                lost: Vec::new(),
            }),
        }
    }

    fn of<'s>(samples: &'s [Sample], metric: &MetricDef) -> Vec<&'s Sample> {
        let named = samples.iter().filter(|it| it.metric.name == metric.name);
        named.collect()
    }

    #[test]
    fn a_histogram_is_cumulative_and_its_last_bucket_has_no_bound() {
        let samples = samples(&reading(Context::Softirq));
        let passes = of(&samples, &DURATION);
        assert_eq!(passes[0].labels, ["softirq"]);
        let buckets = vec![(0.000_008, 1), (0.000_016, 1), (0.000_032, 3)];
        assert_eq!(
            passes[0].value,
            MetricValue::Histogram {
                buckets,
                count: 7,
                sum: 0.1
            }
        );
    }

    #[test]
    fn nobody_is_shown_to_wait_for_threads() {
        let samples = samples(&reading(Context::Kthread));
        for metric in [&RX_WAIT, &TASK_WAIT, &TRACING_ACTIVE] {
            assert_eq!(of(&samples, metric).len(), 0, "{}", metric.name);
        }
    }

    #[test]
    fn namespaces_beyond_the_cap_are_other_and_all_add_up() {
        let mut reading = reading(Context::Softirq);
        reading.namespaces = (0..MAX_NAMESPACES as u32 + 5)
            .map(|netns| namespace(netns, 10))
            .collect();
        let samples = samples(&reading);
        let estimators = of(&samples, &ESTIMATORS);
        assert_eq!(estimators.len(), MAX_NAMESPACES + 1);
        let last = estimators.last().expect("there are some");
        assert_eq!(
            (last.labels[0].as_str(), &last.value),
            ("other", &MetricValue::Number(155.0))
        );
    }

    #[test]
    fn without_probes_the_prediction_is_left() {
        let mut reading = reading(Context::Softirq);
        reading.probed = None;
        let samples = samples(&reading);
        let predicted = of(&samples, &PREDICTED);
        let wanted = 301.0 * 4.0 * 51.5e-9;
        assert!(
            matches!(predicted[0].value, MetricValue::Number(seconds) if (seconds - wanted).abs() < 1e-9),
            "{predicted:?}"
        );
        assert_eq!(of(&samples, &DURATION).len(), 0);
    }
}
