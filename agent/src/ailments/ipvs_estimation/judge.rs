//! The verdict: a pure function of a reading and the limits.

use super::{
    Settings,
    advice::advice,
    measure::{COST_SOURCE, Interval, NamespaceReading, Reading, Recent},
};

use crate::{
    ailments::durations::seconds_as_text,
    model::{Evidence, Finding, Party, Severity},
};

pub(super) const ESTIMATOR_STALL: &str = "estimator_stall";
pub(super) const AT_RISK: &str = "at_risk";
pub(super) const ESTIMATOR_CPU: &str = "estimator_cpu";

/// Namespaces that a finding names.
const NAMED: usize = 5;

/// What is wrong, worst first. Who stalls is not also at risk of it.
pub(super) fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
    let held_up = stalling(reading, settings).or_else(|| at_risk(reading, settings));
    held_up.into_iter().chain(busy(reading, settings)).collect()
}

/// Passes were slow, and somebody waited as long.
fn stalling(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let recent = &reading.probed.as_ref()?.recent;
    let pass = longest(&recent.passes)?;
    let packets = longest(&recent.rx_waits);
    let tasks = longest(&recent.task_waits);
    let wait = [packets, tasks]
        .into_iter()
        .flatten()
        .max_by(|one, other| one.seconds.total_cmp(&other.seconds))?;
    Some(Finding {
        kind: ESTIMATOR_STALL.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "a pass of the IPVS estimator held CPU {} for {}, and {} waited {} for it",
            pass.cpu,
            seconds_as_text(pass.seconds),
            if packets.is_some() {
                "received packets"
            } else {
                "tasks"
            },
            seconds_as_text(packets.unwrap_or(wait).seconds),
        ),
        evidence: measured(recent, settings)
            .into_iter()
            .chain(size(reading))
            .collect(),
        culprits: culprits(reading),
        victims: victims(recent),
        remedies: advice(reading),
        follows_load: false,
    })
}

/// A pass was slow and nobody is known to have waited, or it will be slow.
fn at_risk(reading: &Reading, settings: &Settings) -> Option<Finding> {
    if !reading.holds_up_packets() {
        return None;
    }
    let limit = settings.slow_threshold.as_secs_f64();
    let recent = reading.probed.as_ref().map(|probed| &probed.recent);
    let seen = recent.and_then(|recent| longest(&recent.passes));
    let predicted = reading
        .longest_predicted()
        .filter(|(_, seconds)| *seconds >= limit);
    let summary = match (seen, predicted) {
        (None, None) => return None,
        (Some(pass), _) => format!(
            "a pass of the IPVS estimator held CPU {} for {}; no packet or task is known to have \
             waited yet",
            pass.cpu,
            seconds_as_text(pass.seconds)
        ),
        (None, Some((namespace, seconds))) => format!(
            "a pass over the {} estimators of network namespace {} takes a CPU for about {}",
            namespace.estimators(),
            namespace.netns,
            seconds_as_text(seconds)
        ),
    };
    let mut evidence: Vec<_> = recent
        .map(|recent| measured(recent, settings))
        .unwrap_or_default();
    evidence.extend(predicted.map(|(_, seconds)| prediction(reading, seconds, limit)));
    evidence.extend(size(reading));
    Some(Finding {
        kind: AT_RISK.to_owned(),
        severity: Severity::Warning,
        summary,
        evidence,
        culprits: culprits(reading),
        victims: vec![Party {
            who: "packets and tasks of the CPU of a pass".to_owned(),
            share: "none known yet".to_owned(),
        }],
        remedies: advice(reading),
        follows_load: false,
    })
}

/// The threads take much of a CPU from others, though nobody waits for them.
fn busy(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let threads = reading.threads.as_ref()?;
    let share = threads.taken_from_others() / reading.window_seconds.max(f64::EPSILON);
    if share <= settings.estimator_cpu_ratio {
        return None;
    }
    let mut evidence = vec![Evidence {
        metric: "rate of nodemedic_ipvs_estimation_cpu_seconds_total".to_owned(),
        value: share,
        limit: Some(settings.estimator_cpu_ratio),
    }];
    evidence.extend(size(reading));
    Some(Finding {
        kind: ESTIMATOR_CPU.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "the {} threads of the IPVS estimator use {:.1} % of a CPU",
            threads.threads,
            share * 100.0
        ),
        evidence,
        culprits: culprits(reading),
        victims: Vec::new(),
        remedies: advice(reading),
        follows_load: false,
    })
}

fn longest(intervals: &[Interval]) -> Option<&Interval> {
    intervals
        .iter()
        .max_by(|one, other| one.seconds.total_cmp(&other.seconds))
}

/// The longest of what was slow in the last seconds.
fn measured(recent: &Recent, settings: &Settings) -> Vec<Evidence> {
    let kinds = [
        ("longest pass of the last 10 s, seconds", &recent.passes),
        (
            "longest wait of a receive softirq in the last minute, seconds",
            &recent.rx_waits,
        ),
        (
            "longest wait of a task in the last minute, seconds",
            &recent.task_waits,
        ),
    ];
    kinds
        .into_iter()
        .filter_map(|(what, intervals)| {
            Some(Evidence {
                metric: what.to_owned(),
                value: longest(intervals)?.seconds,
                limit: Some(settings.slow_threshold.as_secs_f64()),
            })
        })
        .collect()
}

fn prediction(reading: &Reading, seconds: f64, limit: f64) -> Evidence {
    let from = if reading.cost.calibrated {
        "from passes on this node"
    } else {
        COST_SOURCE
    };
    Evidence {
        metric: format!("nodemedic_ipvs_estimation_predicted_seconds ({from})"),
        value: seconds,
        limit: Some(limit),
    }
}

/// What a pass has to visit.
fn size(reading: &Reading) -> Vec<Evidence> {
    let plain = |metric: String, value: f64| Evidence {
        metric,
        value,
        limit: None,
    };
    let mut evidence = Vec::new();
    if let Some(namespace) = reading.namespaces.first() {
        let netns = namespace.netns;
        let of = |what| format!("{what} of network namespace {netns}");
        evidence.push(plain(of("services"), namespace.services() as f64));
        evidence.push(plain(of("destinations"), namespace.destinations() as f64));
    }
    let cpus = [
        ("possible CPUs", reading.possible_cpus),
        ("online CPUs", reading.online_cpus),
    ];
    evidence.extend(
        cpus.into_iter()
            .filter_map(|(what, cpus)| Some(plain(what.to_owned(), f64::from(cpus?)))),
    );
    evidence
}

fn culprits(reading: &Reading) -> Vec<Party> {
    let culprit = |namespace: &NamespaceReading| {
        let about = if namespace.is_exact() { "" } else { "about " };
        Party {
            who: format!(
                "network namespace {} (process {})",
                namespace.netns, namespace.pid
            ),
            share: format!(
                "{about}{} services and {} destinations, {} of them with weight 0",
                namespace.services(),
                namespace.destinations(),
                namespace.scan.drained
            ),
        }
    };
    reading.namespaces.iter().take(NAMED).map(culprit).collect()
}

fn victims(recent: &Recent) -> Vec<Party> {
    let victims = [
        ("packets received on CPU", &recent.rx_waits),
        ("tasks of CPU", &recent.task_waits),
    ];
    victims
        .into_iter()
        .filter_map(|(who, waits)| {
            let worst = longest(waits)?;
            Some(Party {
                who: format!("{who} {}", worst.cpu),
                share: format!(
                    "{} slow waits in the last minute, up to {}",
                    waits.len(),
                    seconds_as_text(worst.seconds)
                ),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ebpf::ipvs_estimation::Context;

    use super::{super::treat, *};
    use crate::{
        ailments::{
            durations::Durations,
            ipvs_estimation::{
                IpvsEstimation,
                measure::{Cost, ProbedReading, Switches, Threads},
            },
        },
        collector::{judged, knowledge},
        kernel::ipvs::Scan,
    };

    /// Linux up to 6.1 with a few services: passes take a fifth of a millisecond.
    fn healthy() -> Reading {
        Reading {
            window_seconds: 5.0,
            netns: 7,
            context: Some(Context::Softirq),
            possible_cpus: Some(128),
            online_cpus: Some(8),
            switches: Switches {
                run_estimation: Some(true),
                ..Switches::default()
            },
            namespaces: vec![NamespaceReading {
                netns: 7,
                pid: 1,
                scan: Scan {
                    services: 10,
                    destinations: 20,
                    drained: 1,
                    complete: true,
                    ..Scan::default()
                },
                counted: None,
                estimating: Some(true),
                est_nice: None,
            }],
            cost: Cost {
                ns: 50.0,
                calibrated: true,
            },
            threads: None,
            probed: Some(ProbedReading {
                passes: Durations::default(),
                window_passes: 2,
                longest: Some(interval(0.0002)),
                rx_waits: Durations::default(),
                task_waits: Durations::default(),
                recent: Recent::default(),
                tracing: false,
                lost: Vec::new(),
            }),
        }
    }

    fn interval(seconds: f64) -> Interval {
        Interval {
            cpu: 3,
            began_unix_seconds: 1_000.0,
            seconds,
        }
    }

    /// 50,000 services: 0.64 s on 128 CPUs.
    fn large() -> Reading {
        let mut reading = healthy();
        reading.namespaces[0].scan.services = 50_000;
        reading.namespaces[0].scan.destinations = 50_000;
        reading
    }

    fn recent(reading: &mut Reading) -> &mut Recent {
        let probed = reading.probed.as_mut();
        &mut probed.expect("the healthy one has probes").recent
    }

    fn only(reading: &Reading) -> Finding {
        let mut findings = judge(reading, &Settings::default());
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    fn kinds(reading: &Reading) -> Vec<String> {
        let findings = judge(reading, &Settings::default());
        findings.into_iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_few_services_are_healthy() {
        assert_eq!(kinds(&healthy()), Vec::<String>::new());
    }

    #[test]
    fn slow_passes_for_which_packets_waited_stall() {
        let mut reading = large();
        recent(&mut reading).passes = vec![interval(0.5), interval(0.64)];
        recent(&mut reading).rx_waits = vec![interval(0.3), interval(0.2)];
        let finding = only(&reading);
        assert_eq!(
            (finding.kind.as_str(), finding.severity),
            ("estimator_stall", Severity::Critical)
        );
        assert_eq!(
            finding.summary,
            "a pass of the IPVS estimator held CPU 3 for 640 ms, and received packets waited \
             300 ms for it"
        );
        let numbers: Vec<_> = finding.evidence.iter().map(|it| it.value).collect();
        assert_eq!(numbers, [0.64, 0.3, 50_000.0, 50_000.0, 128.0, 8.0]);
        assert!(
            finding.culprits[0].who.contains("namespace 7"),
            "{finding:?}"
        );
        assert!(finding.victims[0].who.contains("CPU 3"), "{finding:?}");
    }

    #[test]
    fn tasks_that_waited_are_harm_enough() {
        let mut reading = large();
        recent(&mut reading).passes = vec![interval(0.64)];
        recent(&mut reading).task_waits = vec![interval(0.1)];
        let finding = only(&reading);
        assert_eq!(finding.kind, "estimator_stall");
        assert!(
            finding.summary.contains("tasks waited 100 ms"),
            "{finding:?}"
        );
    }

    #[test]
    fn waits_of_long_ago_are_no_stall_once_passes_are_short() {
        let mut reading = healthy();
        recent(&mut reading).rx_waits = vec![interval(0.3)];
        assert_eq!(kinds(&reading), Vec::<String>::new());
    }

    #[test]
    fn slow_passes_for_which_nobody_waited_are_a_risk() {
        let mut reading = healthy();
        recent(&mut reading).passes = vec![interval(0.02)];
        assert_eq!(kinds(&reading), ["at_risk"]);
    }

    #[test]
    fn a_slow_pass_is_foretold_from_the_services_and_says_on_what_grounds() {
        let mut reading = large();
        let calibrated = only(&reading);
        assert_eq!(calibrated.kind, "at_risk");
        assert!(
            calibrated.summary.ends_with("about 640 ms"),
            "{calibrated:?}"
        );
        assert!(
            calibrated.evidence[0]
                .metric
                .contains("from passes on this node")
        );
        reading.cost = Cost::LITERATURE;
        let read = only(&reading);
        assert!(read.evidence[0].metric.contains("mailing list"), "{read:?}");
    }

    #[test]
    fn where_estimation_is_off_nothing_is_foretold() {
        let mut reading = large();
        reading.namespaces[0].estimating = Some(false);
        assert_eq!(kinds(&reading), Vec::<String>::new());
        let notes = treat::notes(&reading);
        assert!(notes[0].contains("statistics are frozen"), "{notes:?}");
        reading.namespaces[0].estimating = Some(true);
        assert_eq!(treat::notes(&reading), Vec::<String>::new());
    }

    /// From 6.2 on.
    fn with_threads(window_cpu_seconds: f64) -> Reading {
        let mut reading = large();
        reading.context = Some(Context::Kthread);
        reading.switches.est_cpulist = Some("0-7".to_owned());
        reading.switches.est_nice = Some("0".to_owned());
        reading.threads = Some(Threads {
            threads: 4,
            cpu_seconds: 100.0,
            window_cpu_seconds,
            window_yielding_seconds: 0.0,
        });
        reading.namespaces[0].est_nice = Some(0);
        reading
    }

    #[test]
    fn nobody_waits_for_threads_but_they_can_be_busy() {
        assert_eq!(kinds(&with_threads(0.5)), Vec::<String>::new());
        let finding = only(&with_threads(2.0));
        assert_eq!(finding.kind, "estimator_cpu");
        assert_eq!(finding.evidence[0].value, 0.4);
    }

    #[test]
    fn threads_that_let_all_others_go_first_are_told_and_are_no_finding() {
        let mut reading = with_threads(2.0);
        let yields = |reading: &mut Reading, seconds| {
            let threads = reading.threads.as_mut().expect("they are there");
            threads.window_yielding_seconds = seconds;
        };
        yields(&mut reading, 2.0);
        assert_eq!(kinds(&reading), Vec::<String>::new());
        let notes = treat::notes(&reading);
        assert!(notes[0].contains("40.0 % of a CPU"), "{notes:?}");
        // Some of them do not.
        yields(&mut reading, 0.5);
        assert_eq!(only(&reading).evidence[0].value, 0.3);
    }

    #[test]
    fn to_let_others_go_first_is_proposed_before_the_statistics_are_stopped() {
        let proposed = |reading: &Reading| {
            let proposals = treat::proposals(reading).into_iter();
            let named = proposals.map(|it| (it.treatment, it.changes.len()));
            named.collect::<Vec<_>>()
        };
        let mut reading = with_threads(2.0);
        let both = |nice| {
            vec![
                ("est_nice".to_owned(), nice),
                ("run_estimation".to_owned(), 1),
            ]
        };
        assert_eq!(proposed(&reading), both(1));
        // As it is already; as somebody wants just the opposite; as nobody knows.
        for nice in [Some(19), Some(-5), None] {
            reading.namespaces[0].est_nice = nice;
            assert_eq!(proposed(&reading), both(0), "{nice:?}");
        }
        // Before 6.2.
        assert_eq!(proposed(&large()), [("run_estimation".to_owned(), 1)]);
    }

    /// Those of the worst finding.
    fn remedies(reading: &Reading) -> Vec<String> {
        let (_, mut found) = judged::<IpvsEstimation>(reading, &Settings::default());
        found.swap_remove(0).remedies
    }

    #[test]
    fn only_remedies_that_the_kernel_has_are_named() {
        let named = |reading: &Reading, remedy: &str| {
            remedies(reading).iter().any(|it| it.contains(remedy))
        };
        let switch = large();
        let mut none = large();
        none.switches = Switches::default();
        let threads = with_threads(2.0);
        for (remedy, wanted) in [
            ("run_estimation=0", [true, false, true]),
            ("possible_cpus=8", [true, true, true]),
            ("est_nice=19", [false, false, true]),
            ("est_cpulist", [false, false, true]),
            ("Linux 6.2", [true, true, false]),
        ] {
            let found = [&switch, &none, &threads].map(|reading| named(reading, remedy));
            assert_eq!(found, wanted, "{remedy}");
        }
    }

    #[test]
    fn the_gain_of_fewer_possible_cpus_is_foretold() {
        let gain = "about 40 ms instead of 640 ms";
        assert!(remedies(&large()).iter().any(|it| it.contains(gain)));
        let mut reading = large();
        reading.online_cpus = Some(128);
        assert!(
            !remedies(&reading)
                .iter()
                .any(|it| it.contains("possible_cpus"))
        );
    }

    #[test]
    fn what_another_namespace_has_is_switched_off_from_within() {
        let mut reading = large();
        reading.namespaces[0].netns = 9;
        let remedies = remedies(&reading).join("");
        assert!(
            remedies.contains("nsenter -t 1 -n sysctl -w net.ipv4.vs.run_estimation=0"),
            "{remedies}"
        );
    }

    /// One reading for each way in which a verdict comes about.
    fn wrong() -> Vec<(&'static str, Reading)> {
        let without_probes = Reading {
            probed: None,
            ..large()
        };
        // Many estimators, as wherever passes are long: without probes they are predicted.
        let mut stalls = large();
        recent(&mut stalls).passes = vec![interval(0.05)];
        recent(&mut stalls).rx_waits = vec![interval(0.04)];
        vec![
            ("a prediction", without_probes),
            ("a prediction beside probes", large()),
            ("a stall", stalls),
            ("threads", with_threads(4.0)),
        ]
    }

    #[test]
    fn no_missing_fact_and_no_two_make_a_verdict_healthy() {
        knowledge::less_is_never_healthy::<IpvsEstimation>(&wrong());
    }

    #[test]
    fn any_counters_are_judged_by_numbers() {
        knowledge::any_numbers_are_judged::<IpvsEstimation>(&wrong(), &["/probed"]);
    }
}
