//! What can be done against it: what each change does, what it costs, how it is undone;
//! and what to know where something was done.

use super::{
    judge::{AT_RISK, ESTIMATOR_CPU, ESTIMATOR_STALL},
    measure::{LOWEST_NICE, NamespaceReading, Reading},
    support::{EST_NICE, RUN_ESTIMATION},
};

use crate::{
    ailments::durations::seconds_as_text,
    model::{Bound, Change, Proposal, Treatment},
};

/// What `run_estimation=0` takes away (ip_vs_ctl.c, `ip_vs_copy_stats` and
/// `ip_vs_stats_percpu_show`).
const FROZEN: &str = "ipvsadm --stats and --rate, the netlink statistics, /proc/net/ip_vs_stats \
     and all exporters of these freeze; the lines by CPU of /proc/net/ip_vs_stats_percpu and the \
     numbers of connections stay live";

/// The gentlest first. `est_cpulist` is left to people: which CPUs have time is theirs to know.
pub(super) const TREATMENTS: &[&Treatment] = &[&YIELD, &STOP];

static YIELD: Treatment = Treatment {
    name: "est_nice",
    effect: "the threads of the estimator yield to every other task",
    cost: "while the CPUs are busy, ipvsadm --rate may lag",
    acts: "at once: the kernel restarts the threads; connections and their scheduling are not \
           affected",
    applies: "where kernel threads estimate (Linux 6.2 and later) and est_nice is not below 0; in \
           each network namespace with services",
    keys: &[Bound {
        key: EST_NICE,
        allowed: LOWEST_NICE as u64..=LOWEST_NICE as u64,
    }],
    durable: "set net.ipv4.vs.est_nice=19 in a file of /etc/sysctl.d, and load ip_vs before \
              systemd-sysctl runs (a file of /etc/modules-load.d)",
};

static STOP: Treatment = Treatment {
    name: "run_estimation",
    effect: "IPVS rate estimation is off",
    cost: "ipvsadm --stats and --rate, the netlink statistics, /proc/net/ip_vs_stats and all \
           exporters of these freeze",
    acts: "within 2 s; connections and their scheduling are not affected (schedulers that count \
           connections use other counters)",
    applies: "where the kernel has net.ipv4.vs.run_estimation (5.10 does not); in each network \
           namespace with services, later ones included",
    keys: &[Bound {
        key: RUN_ESTIMATION,
        allowed: 0..=0,
    }],
    durable: "set net.ipv4.vs.run_estimation=0 in a file of /etc/sysctl.d, and load ip_vs before \
              systemd-sysctl runs (a file of /etc/modules-load.d)",
};

/// What each treatment would be now.
pub(super) fn proposals(reading: &Reading) -> Vec<Proposal> {
    let changes = reading
        .namespaces
        .iter()
        .filter(|namespace| namespace.estimating == Some(true))
        .map(|namespace| Change::new(RUN_ESTIMATION, namespace.netns, 1, 0));
    let known = reading.switches.run_estimation.is_some();
    let stop =
        known.then(|| Proposal::new(&STOP, &[ESTIMATOR_STALL, AT_RISK, ESTIMATOR_CPU], changes));
    yielding(reading).into_iter().chain(stop).collect()
}

fn yielding(reading: &Reading) -> Option<Proposal> {
    reading.switches.est_nice.as_ref()?;
    reading.threads?;
    let changes = reading.namespaces.iter().filter_map(|namespace| {
        let nice = u64::try_from(namespace.est_nice?).ok()?;
        let lowest = LOWEST_NICE as u64;
        (nice < lowest).then(|| Change::new(EST_NICE, namespace.netns, nice, lowest))
    });
    Some(Proposal::new(&YIELD, &[ESTIMATOR_CPU], changes))
}

/// What a user should know although nothing is wrong.
pub(super) fn notes(reading: &Reading) -> Vec<String> {
    let stopped: Vec<_> = reading
        .namespaces
        .iter()
        .filter(|namespace| namespace.estimating == Some(false))
        .collect();
    let own_is_off = reading.switches.run_estimation == Some(false);
    let own_is_listed = stopped.iter().any(|it| it.netns == reading.netns);
    let mut notes: Vec<_> = stopped.into_iter().map(|it| frozen(reading, it)).collect();
    if own_is_off && !own_is_listed {
        notes.push(format!(
            "{RUN_ESTIMATION} is 0 in network namespace {}, which has no services yet",
            reading.netns
        ));
    }
    notes.extend(yielded(reading));
    notes
}

fn yielded(reading: &Reading) -> Option<String> {
    let seconds = reading.threads?.window_yielding_seconds;
    (seconds > 0.0).then(|| {
        format!(
            "the threads of the estimator use {:.1} % of a CPU at nice {LOWEST_NICE}: they yield \
             to every other task",
            seconds / reading.window_seconds.max(f64::EPSILON) * 100.0
        )
    })
}

fn frozen(reading: &Reading, namespace: &NamespaceReading) -> String {
    let saved = match reading.possible_cpus {
        Some(cpus) => format!(
            " A pass would take about {}.",
            seconds_as_text(reading.predicted(namespace, cpus))
        ),
        None => String::new(),
    };
    format!(
        "{RUN_ESTIMATION} is 0 in network namespace {}: IPVS statistics are frozen. {FROZEN}.{saved}",
        namespace.netns
    )
}
