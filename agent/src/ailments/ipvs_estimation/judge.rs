//! The verdict: a pure function of a reading and the limits.

use super::{
    Settings,
    measure::{COST_SOURCE, Interval, NamespaceReading, Reading, Recent},
    treat,
};
use crate::report::{Evidence, Finding, Party, Severity};

/// The kinds of finding, worst first.
pub(super) const KINDS: &[&str] = &[STALLING, AT_RISK, BUSY];
const STALLING: &str = "stalling";
const AT_RISK: &str = "at_risk";
const BUSY: &str = "busy";

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
        kind: STALLING.to_owned(),
        severity: Severity::Critical,
        summary: format!(
            "a pass of the IPVS estimator held CPU {} for {}, and {} waited {} for it",
            pass.cpu,
            time(pass.seconds),
            if packets.is_some() {
                "received packets"
            } else {
                "tasks"
            },
            time(packets.unwrap_or(wait).seconds),
        ),
        evidence: measured(recent, settings)
            .into_iter()
            .chain(size(reading))
            .collect(),
        culprits: culprits(reading),
        victims: victims(recent),
        remedies: treat::remedies(reading),
    })
}

/// A pass was slow and nobody is known to have waited, or it will be slow.
fn at_risk(reading: &Reading, settings: &Settings) -> Option<Finding> {
    if !reading.holds_up_packets() {
        return None;
    }
    let limit = settings.slow.as_secs_f64();
    let recent = reading.probed.as_ref().map(|probed| &probed.recent);
    let seen = recent.and_then(|recent| longest(&recent.passes));
    let predicted = reading
        .longest_predicted()
        .filter(|(_, seconds)| *seconds >= limit);
    let summary = match (seen, predicted) {
        (None, None) => return None,
        (Some(pass), _) => format!(
            "a pass of the IPVS estimator held CPU {} for {}; nobody is known to have waited yet",
            pass.cpu,
            time(pass.seconds)
        ),
        (None, Some((namespace, seconds))) => format!(
            "a pass over the {} estimators of network namespace {} takes a CPU for about {}",
            namespace.estimators(),
            namespace.netns,
            time(seconds)
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
            who: "packets received on the CPU of a pass, and tasks that run there".to_owned(),
            share: "none known yet".to_owned(),
        }],
        remedies: treat::remedies(reading),
    })
}

/// The threads take much of a CPU, though nobody waits for them.
fn busy(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let threads = reading.threads.as_ref()?;
    let share = threads.window_cpu_seconds / reading.window_seconds.max(f64::EPSILON);
    if share <= settings.busy_ratio {
        return None;
    }
    let mut evidence = vec![Evidence {
        metric: "rate of nodemedic_ipvs_estimation_cpu_seconds_total".to_owned(),
        value: share,
        limit: Some(settings.busy_ratio),
    }];
    evidence.extend(size(reading));
    Some(Finding {
        kind: BUSY.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "the {} threads of the IPVS estimator take {:.1} % of a CPU",
            threads.threads,
            share * 100.0
        ),
        evidence,
        culprits: culprits(reading),
        victims: Vec::new(),
        remedies: treat::remedies(reading),
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
                limit: Some(settings.slow.as_secs_f64()),
            })
        })
        .collect()
}

fn prediction(reading: &Reading, seconds: f64, limit: f64) -> Evidence {
    let from = if reading.cost.calibrated {
        "by passes seen on this node"
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
        let census = &namespace.census;
        let of = |what| format!("{what} of network namespace {netns}");
        evidence.push(plain(of("services"), census.services as f64));
        evidence.push(plain(of("destinations"), census.destinations as f64));
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
        let census = &namespace.census;
        let at_least = if census.complete { "" } else { "at least " };
        Party {
            who: format!(
                "network namespace {} (process {})",
                namespace.netns, namespace.pid
            ),
            share: format!(
                "{at_least}{} services and {} destinations, {} of them of weight 0",
                census.services, census.destinations, census.drained
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
                    time(worst.seconds)
                ),
            })
        })
        .collect()
}

/// Seconds as people write them.
pub(super) fn time(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}
