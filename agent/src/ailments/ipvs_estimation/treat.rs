//! What can be done against it: what each change does, what it costs, how it is undone;
//! and what to know where something was done.

use ebpf::ipvs_estimation::Context;

use super::{
    judge::{AT_RISK, ESTIMATOR_CPU, ESTIMATOR_STALL, time},
    measure::{LOWEST_NICE, NamespaceReading, Reading},
    support::{EST_CPULIST, EST_NICE, RUN_ESTIMATION},
};

use crate::model::{Bound, Change, Proposal, Treatment};

/// What `run_estimation=0` takes away (ip_vs_ctl.c, `ip_vs_copy_stats` and
/// `ip_vs_stats_percpu_show`).
const FROZEN: &str = "ipvsadm --stats and --rate, the netlink statistics and \
                      /proc/net/ip_vs_stats stand still, and with them whatever exports them; \
                      the lines by CPU of /proc/net/ip_vs_stats_percpu and the numbers of \
                      connections stay live";

/// The gentlest first. `est_cpulist` is left to people: which CPUs have time is theirs to know.
pub(super) const TREATMENTS: &[&Treatment] = &[&YIELD, &STOP];

static YIELD: Treatment = Treatment {
    name: "est_nice",
    effect: "the threads of the estimator let whatever else wants the CPU go first",
    cost: "while the CPUs are busy, the rates of ipvsadm --rate may be late",
    acts: "at once: the kernel makes the threads anew; connections and their scheduling do not \
           notice",
    applies: "where threads estimate (Linux 6.2 and later) and nobody has set est_nice below 0; \
              in each network namespace with services",
    keys: &[Bound {
        key: EST_NICE,
        allowed: LOWEST_NICE as u64..=LOWEST_NICE as u64,
    }],
    durable: "set net.ipv4.vs.est_nice=19 in a file of /etc/sysctl.d, and load ip_vs before \
              systemd-sysctl runs (a file of /etc/modules-load.d)",
};

static STOP: Treatment = Treatment {
    name: "run_estimation",
    effect: "estimators are not visited any more",
    cost: "ipvsadm --stats and --rate, the netlink statistics and /proc/net/ip_vs_stats stand \
           still, and with them whatever exports them",
    acts: "within 2 s; connections and their scheduling do not notice (schedulers that weigh by \
           connections use other counters)",
    applies: "where the kernel has net.ipv4.vs.run_estimation (5.10 has not); in each network \
              namespace with services, those that come later too",
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

/// Remedies that this kernel has, safest first.
pub(super) fn remedies(reading: &Reading) -> Vec<String> {
    let mut remedies = Vec::new();
    match reading.context {
        Some(Context::Kthread) => remedies.extend(of_threads(reading)),
        Some(Context::Softirq | Context::Workqueue) | None => {}
    }
    remedies.extend(switch_off(reading));
    remedies.extend(fewer_cpus(reading));
    remedies.push(
        "make fewer services: a NodePort is one for each address of the node, an external IP one \
         for each port"
            .to_owned(),
    );
    if reading.holds_up_packets() {
        remedies.push(
            "use Linux 6.2 or later, where threads estimate in short pieces and nobody waits"
                .to_owned(),
        );
    }
    remedies
}

fn of_threads(reading: &Reading) -> Vec<String> {
    let switches = &reading.switches;
    let mut remedies = Vec::new();
    if let Some(nice) = switches.est_nice.as_deref() {
        let Treatment { effect, cost, .. } = &YIELD;
        remedies.push(format!(
            "sysctl -w {EST_NICE}={LOWEST_NICE}: {effect}; costs: {cost}; undo: sysctl -w \
             {EST_NICE}={nice}"
        ));
    }
    if let Some(list) = switches.est_cpulist.as_deref() {
        let undo = match list {
            "" => "an empty list".to_owned(),
            list => list.to_owned(),
        };
        remedies.push(format!(
            "sysctl -w {EST_CPULIST}=LIST: the threads keep to CPUs that have time, of those that \
             the writer may use itself; undo: write {undo}"
        ));
    }
    remedies
}

fn switch_off(reading: &Reading) -> Option<String> {
    reading.switches.run_estimation?;
    let worst = reading.longest_predicted().map(|(namespace, _)| namespace);
    let within = match worst {
        Some(namespace) if namespace.netns != reading.netns => {
            format!("nsenter -t {} -n ", namespace.pid)
        }
        Some(_) | None => String::new(),
    };
    Some(format!(
        "{within}sysctl -w {RUN_ESTIMATION}=0: estimators are not visited any more, within 2 s; \
         costs: {FROZEN}; undo: {within}sysctl -w {RUN_ESTIMATION}=1. A new network namespace and \
         a reload of ip_vs begin with 1"
    ))
}

/// A pass visits CPUs that will never come.
fn fewer_cpus(reading: &Reading) -> Option<String> {
    let (possible, online) = (reading.possible_cpus?, reading.online_cpus?);
    let (worst, now) = reading.longest_predicted()?;
    (possible > online).then(|| {
        format!(
            "boot with possible_cpus={online}: a pass visits each of {possible} possible CPUs, \
             and {online} are there, so it would take about {} instead of {}; costs: no CPU beyond \
             them can be added without a reboot; undo: take it off the command line",
            time(reading.predicted(worst, online)),
            time(now)
        )
    })
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
            "threads of the estimator take {:.1} % of a CPU at nice {LOWEST_NICE}: whatever else \
             wants it goes first",
            seconds / reading.window_seconds.max(f64::EPSILON) * 100.0
        )
    })
}

fn frozen(reading: &Reading, namespace: &NamespaceReading) -> String {
    let saved = match reading.possible_cpus {
        Some(cpus) => format!(
            " A pass would take about {}.",
            time(reading.predicted(namespace, cpus))
        ),
        None => String::new(),
    };
    format!(
        "{RUN_ESTIMATION} is 0 in network namespace {}: IPVS statistics are frozen. {FROZEN}.{saved}",
        namespace.netns
    )
}
