//! Waits for a CPU: because a quota is used up, or because others run.

use super::{CPU_CONTENTION, CPU_THROTTLED, IRQ_PRESSURE, Judge, NAMED, is_below, probed};
use crate::{
    ailments::psi_stall::{
        advice,
        measure::{CgroupReading, CpuReading, InterruptedCpu, Reading},
    },
    kernel::pressure::Resource,
    model::{Evidence, Finding, Party, Severity},
};

/// A wait is the quota's if the quota held for at least this part of it.
const BY_QUOTA: f64 = 0.5;

/// All CPUs are called busy from here on.
const BUSY: f64 = 0.75;

/// Part of the window for which CPUs have to have been idle while tasks waited, before
/// that is told.
const SURELY_IDLE: f64 = 0.2;

/// The hypervisor is why tasks wait from this part of the CPU time on.
const STOLEN: f64 = 0.1;

/// The agent is the one that runs from this part of the CPU time on.
const AGENT: f64 = 0.2;

/// Who runs for less than this part of one CPU makes nobody wait.
const RUNNER: f64 = 0.05;

/// A quota keeps tasks from running although there may be CPUs for them.
pub(super) fn throttled(judge: Judge<'_>) -> Option<Finding> {
    let limit = judge.settings.cpu_ratio;
    let held = |it: &CgroupReading| judge.share(held_seconds(judge, it));
    let cgroups = judge.cgroups();
    let mut throttled: Vec<_> = cgroups.filter(|it| held(it) > limit).collect();
    throttled.sort_by(|a, b| held(b).total_cmp(&held(a)));
    let worst = *throttled.first()?;
    let mut victims: Vec<_> = judge
        .stalled(Resource::Cpu)
        .into_iter()
        .filter(|it| is_throttled(judge, it))
        .collect();
    if victims.is_empty() {
        victims.clone_from(&throttled);
    }
    let mut evidence = vec![periods(judge, worst)];
    evidence.push(judge.pressure(Resource::Cpu, &victims));
    evidence.extend(busy(judge.reading));
    let cpus = |it: &CgroupReading| match it.quota_cpus {
        Some(cpus) => format!("{cpus:.2} CPUs"),
        None => "a quota that was removed since, or that could not be read".to_owned(),
    };
    let culprit = |it: &&CgroupReading| Party {
        who: format!("{} of {}", advice::quota_file(it), judge.who(&it.path)),
        share: format!(
            "{}, used up in {}; throttled its tasks for at most {:.0} % of the time, and they waited \
             for {:.0} %",
            cpus(it),
            match it.periods {
                0 => format!("{} periods", it.throttled_periods),
                all => format!("{} of {all} periods", it.throttled_periods),
            },
            100.0 * judge.share(most_seconds(judge, it)),
            100.0 * held(it)
        ),
    };
    // Without pressure of its own, what a cgroup waited is known by its bound alone.
    let surely = judge.share(worst.waits.cpu.some.max(least_seconds(judge, worst)));
    Some(Finding {
        kind: CPU_THROTTLED.to_owned(),
        severity: if held(worst).min(surely) >= judge.settings.critical_ratio {
            Severity::Critical
        } else {
            Severity::Warning
        },
        summary: format!(
            "{} wait for a CPU: the quota of {}, {}, is used up",
            judge.subject(&victims),
            judge.who(&worst.path),
            cpus(worst)
        ),
        evidence,
        culprits: throttled.iter().take(NAMED).map(culprit).collect(),
        victims: throttled_victims(judge, &victims),
        remedies: advice::for_quota(worst),
        follows_load: true,
    })
}

fn periods(judge: Judge<'_>, it: &CgroupReading) -> Evidence {
    let who = judge.who(&it.path);
    match it.periods {
        0 => Evidence {
            metric: format!("nr_throttled in cpu.stat of {who} in the window"),
            value: it.throttled_periods as f64,
            limit: None,
        },
        all => Evidence {
            metric: format!("nr_throttled of nr_periods in cpu.stat of {who}, as a share"),
            value: (it.throttled_periods as f64 / all as f64).min(1.0),
            limit: None,
        },
    }
}

/// For how long the quota of a cgroup held its tasks at the most: `throttled_usec` adds up the run
/// queues of all CPUs (kernel/sched/fair.c, `tg_unthrottle_up`), but is of the periods that ended
/// throttled.
fn most_seconds(judge: Judge<'_>, it: &CgroupReading) -> f64 {
    if it.throttled_periods == 0 {
        return 0.0;
    }
    let part = match it.periods {
        0 => 1.0,
        all => (it.throttled_periods as f64 / all as f64).min(1.0),
    };
    it.throttled_seconds
        .min(part * judge.reading.window_seconds)
}

/// And at the least: on all CPUs at once.
fn least_seconds(judge: Judge<'_>, it: &CgroupReading) -> f64 {
    let all = it.throttled_seconds / f64::from(judge.reading.cpus.max(1));
    all.min(most_seconds(judge, it))
}

/// For how long it did, by the pressure, which is a share of the time. Kernels before 5.7 do not
/// call a throttled task waiting (b05e75d61138, "psi: Fix cpu.pressure for cpu.max and competing
/// cgroups"), nor has version 1 any pressure: then the bound counts.
fn held_seconds(judge: Judge<'_>, it: &CgroupReading) -> f64 {
    let (least, most) = (least_seconds(judge, it), most_seconds(judge, it));
    let waited = it.waits.cpu.some;
    if waited < least / 2.0 {
        most
    } else {
        most.min(waited)
    }
}

/// Not every kernel counts who is throttled as waiting; the quota's own clock does.
fn throttled_victims<'r>(judge: Judge<'r>, victims: &[&'r CgroupReading]) -> Vec<Party> {
    let party = |it: &&'r CgroupReading| {
        let quota = judge.upwards(&it.path).map(|it| held_seconds(judge, it));
        let seconds = quota.fold(it.waits.cpu.some, f64::max);
        Party {
            who: judge.who(&it.path),
            share: format!(
                "waited for a CPU for {:.0} % of the time{}",
                100.0 * judge.share(seconds),
                judge.commands(Resource::Cpu, Some(&it.path))
            ),
        }
    };
    victims.iter().take(NAMED).map(party).collect()
}

/// Whether the quota of a cgroup, or of one above, is what it waits for.
fn is_throttled(judge: Judge<'_>, cgroup: &CgroupReading) -> bool {
    let held = judge.upwards(&cgroup.path);
    let held = held.map(|it| most_seconds(judge, it)).fold(0.0, f64::max);
    held > BY_QUOTA * cgroup.waits.cpu.some
}

/// Tasks wait because others run.
pub(super) fn contention(judge: Judge<'_>) -> Option<Finding> {
    // A task that has a CPU runs, for the scheduler, while the hypervisor has taken that.
    let stolen = stolen(judge.reading) > judge.settings.cpu_ratio;
    if agent_is_starting(judge.reading) && !stolen {
        return None;
    }
    let stalled = judge.stalled(Resource::Cpu);
    let victims: Vec<_> = stalled
        .iter()
        .copied()
        .filter(|it| !is_throttled(judge, it))
        .collect();
    let nobody_known =
        stalled.is_empty() && judge.node_stalls(Resource::Cpu) && !any_throttled(judge);
    if victims.is_empty() && !nobody_known && !stolen {
        return None;
    }
    let pressure = judge.pressure(Resource::Cpu, &victims);
    let why = why(judge, &victims, pressure.value);
    let mut evidence = vec![pressure];
    evidence.extend(busy(judge.reading));
    evidence.extend(judge.cause_evidence(Resource::Cpu));
    evidence.extend(steal_evidence(judge));
    evidence.extend(idle_evidence(judge.reading));
    evidence.extend(irq_evidence(judge));
    let (summary, culprits, remedies) = match why {
        Why::Stolen(share) => (
            format!("the hypervisor took {:.0} % of the CPU time", 100.0 * share),
            vec![Party {
                who: "the hypervisor".to_owned(),
                share: format!("{:.0} % of the CPU time (steal)", 100.0 * share),
            }],
            advice::for_steal(),
        ),
        Why::CpuSet(cgroup, allowed) => (
            format!(
                "the CPU set of {} has {allowed} of {} CPUs",
                judge.who(&cgroup.path),
                judge.reading.cpus
            ),
            vec![Party {
                who: format!("cpuset.cpus of {}", judge.who(&cgroup.path)),
                share: format!(
                    "{allowed} of {} CPUs{}",
                    judge.reading.cpus,
                    busy_set(cgroup)
                ),
            }],
            advice::for_cpu_set(&cgroup.path),
        ),
        Why::Isolated(cgroup, allowed) => (
            format!(
                "the {allowed} CPUs of {} are isolated, and the kernel does not balance tasks over \
                 those",
                judge.who(&cgroup.path)
            ),
            vec![Party {
                who: format!("isolated CPUs (isolcpus=) of {}", judge.who(&cgroup.path)),
                share: format!("all {allowed} CPUs that it may use"),
            }],
            advice::for_isolated_cpus(&cgroup.path),
        ),
        Why::Unknown(idle) => (
            format!("cannot tell why: {}", ruled_out(judge, idle)),
            Vec::new(),
            advice::for_idle_cpus(),
        ),
        Why::Busy => (
            "all CPUs are busy with other tasks".to_owned(),
            runners(judge, &victims),
            advice::for_contention(),
        ),
        Why::Others => (
            "other tasks run".to_owned(),
            runners(judge, &victims),
            advice::for_contention(),
        ),
    };
    Some(Finding {
        kind: CPU_CONTENTION.to_owned(),
        severity: match why {
            Why::Unknown(_) => Severity::Warning,
            Why::Stolen(_) | Why::Isolated(..) | Why::CpuSet(..) | Why::Busy | Why::Others => {
                judge.severity(Resource::Cpu, &victims)
            }
        },
        summary: format!("{} wait for a CPU: {summary}", judge.subject(&victims)),
        evidence,
        culprits,
        victims: judge.victims(Resource::Cpu, &victims),
        remedies,
        follows_load: true,
    })
}

/// What does not explain the waits, and what is not known.
fn ruled_out(judge: Judge<'_>, idle: Option<f64>) -> String {
    let reading = judge.reading;
    let cpus = match (idle, &reading.node.cpu_doubt) {
        (Some(idle), _) => format!("CPUs were idle for {:.0} % of the time", 100.0 * idle),
        (None, Some(why)) => format!("what CPUs did is not known ({why})"),
        (None, None) => "what CPUs did is not known".to_owned(),
    };
    let quotas = if reading.cpu_on_version_1 {
        ". The CPU controller is mounted in version 1, and its quotas could not be read"
    } else {
        ", no quota was used up"
    };
    format!("{cpus}, no CPU set of a cgroup explains it{quotas}")
}

/// How busy the CPUs of a set were, where that is known.
fn busy_set(cgroup: &CgroupReading) -> String {
    let busy = cgroup.allowed_idle.map(|idle| 100.0 * (1.0 - idle));
    busy.map_or_else(String::new, |busy| {
        format!(", busy for {busy:.0} % of the time")
    })
}

/// Why tasks wait for a CPU, as far as numbers explain it.
#[derive(Clone, Copy)]
enum Why<'r> {
    /// The hypervisor took this part of the CPU time.
    Stolen(f64),
    /// This cgroup may use so many CPUs, all of them isolated.
    Isolated(&'r CgroupReading, u32),
    /// The set of this cgroup has so many CPUs.
    CpuSet(&'r CgroupReading, u32),
    /// CPUs were idle for this part of the time, where that is known, and nothing explains it.
    Unknown(Option<f64>),
    /// All CPUs were busy.
    Busy,
    /// Others ran, and it is known that CPUs were not idle meanwhile.
    Others,
}

fn why<'r>(judge: Judge<'r>, victims: &[&'r CgroupReading], pressure: f64) -> Why<'r> {
    let reading = judge.reading;
    let stolen = stolen(reading);
    if stolen >= STOLEN {
        return Why::Stolen(stolen);
    }
    let Some(busy) = busy_share(reading) else {
        // The cgroups' own clocks go on.
        let least = share_of_all(reading, in_cgroups(reading));
        return if least >= BUSY {
            Why::Busy
        } else {
            Why::Unknown(None)
        };
    };
    // Tasks waited for longer than all CPUs together can have been busy: some were idle
    // while they waited, not only before.
    let idle = share_of_cpus(reading, |cpu| cpu.idle).unwrap_or(1.0 - busy);
    let kept_away = reading.cpus > 1 && pressure - busy > SURELY_IDLE && idle > SURELY_IDLE;
    if kept_away {
        let sets = || victims.first().map(|worst| judge.upwards(&worst.path));
        let isolated = |it: &'r CgroupReading| {
            let allowed = it.allowed_cpus.filter(|allowed| *allowed > 1)?;
            (it.isolated_cpus? >= allowed).then_some(Why::Isolated(it, allowed))
        };
        let smaller = |it: &'r CgroupReading| {
            let allowed = it.allowed_cpus.filter(|allowed| *allowed < reading.cpus)?;
            // Nor can the CPUs of the set have been busy for as long as tasks waited.
            let busy = it.allowed_idle.map(|idle| 1.0 - idle);
            let explains = busy.is_none_or(|busy| pressure - busy <= SURELY_IDLE);
            explains.then_some(Why::CpuSet(it, allowed))
        };
        let mut why = sets().into_iter().flatten().filter_map(isolated);
        let mut sets = sets().into_iter().flatten().filter_map(smaller);
        let why = why.next().or_else(|| sets.next());
        return why.unwrap_or(Why::Unknown(Some(idle)));
    }
    if busy >= BUSY {
        Why::Busy
    } else if reading.cpu_on_version_1 && idle > SURELY_IDLE {
        // A quota may be it as well.
        Why::Unknown(Some(idle))
    } else {
        Why::Others
    }
}

/// CPU time as a part of that of all CPUs in the window.
fn share_of_all(reading: &Reading, seconds: f64) -> f64 {
    let whole = reading.node.cpu.as_ref().map(CpuReading::total);
    // A CPU that was added in the window was there for a part of it.
    let whole = whole.filter(|whole| *whole > 0.0);
    let whole = whole.unwrap_or(reading.window_seconds * f64::from(reading.cpus.max(1)));
    (seconds / whole.max(f64::EPSILON)).min(1.0)
}

/// The share of one thing that CPUs do; `None` where the reading does not have it.
fn share_of_cpus(reading: &Reading, part: impl Fn(&CpuReading) -> f64) -> Option<f64> {
    let cpu = reading.node.cpu.as_ref()?;
    Some(share_of_all(reading, part(cpu)))
}

/// The share of the CPU time that the hypervisor took, as far as is known.
fn stolen(reading: &Reading) -> f64 {
    share_of_cpus(reading, |cpu| cpu.steal).unwrap_or(0.0)
}

fn steal_evidence(judge: Judge<'_>) -> Option<Evidence> {
    let stolen = stolen(judge.reading);
    (stolen >= STOLEN).then(|| Evidence {
        metric: "steal in /proc/stat, as a share of all CPUs".to_owned(),
        value: stolen,
        limit: Some(judge.settings.cpu_ratio),
    })
}

fn idle_evidence(reading: &Reading) -> Option<Evidence> {
    Some(Evidence {
        metric: "idle time in /proc/stat, as a share of all CPUs".to_owned(),
        value: share_of_cpus(reading, |cpu| cpu.idle)?,
        limit: None,
    })
}

/// Interrupts take CPUs from tasks: for much of the node's time, or most of one CPU.
pub(super) fn interrupts(judge: Judge<'_>) -> Option<Finding> {
    let limit = judge.settings.cpu_ratio;
    let pressure = judge.share(judge.node(Resource::Irq).some);
    let interrupted = judge.reading.node.interrupted.as_ref();
    let of_one = interrupted.map_or(0.0, |it| judge.share(it.time.irq + it.time.softirq));
    // Not every kernel accounts for interrupts in the pressure.
    let of_all = share_of_cpus(judge.reading, |cpu| cpu.irq + cpu.softirq).unwrap_or(0.0);
    let all = of_all > limit;
    if pressure <= limit && of_one < judge.settings.critical_ratio && !all {
        return None;
    }
    let of_node = irq_evidence(judge).map(|evidence| Evidence {
        limit: Some(limit),
        ..evidence
    });
    let of_cpus = all.then(|| Evidence {
        metric: "irq and softirq time in /proc/stat, as a share of all CPUs".to_owned(),
        value: of_all,
        limit: Some(limit),
    });
    let of_cpu = interrupted.map(|it| Evidence {
        metric: format!(
            "irq and softirq time of CPU {} in /proc/stat, as a share",
            it.cpu
        ),
        value: of_one,
        limit: Some(judge.settings.critical_ratio),
    });
    let what = match interrupted {
        _ if all => format!(
            "interrupts and softirqs took {:.0} % of all CPUs",
            100.0 * of_all
        ),
        Some(it) => format!(
            "interrupts and softirqs took {:.0} % of CPU {}",
            100.0 * of_one,
            it.cpu
        ),
        None => format!("interrupts took {:.0} % of the time", 100.0 * pressure),
    };
    let node = &judge.reading.node;
    let on_all = all.then(|| Party {
        who: format!("interrupts and softirqs{}", rates(judge, &node.softirqs)),
        share: format!("{:.0} % of the time of all CPUs", 100.0 * of_all),
    });
    let on_one = interrupted.into_iter();
    let on_one = on_one.flat_map(|it| interrupts_of(judge, it));
    let network = interrupted.is_some_and(|it| mostly_network(&it.softirqs));
    Some(Finding {
        kind: IRQ_PRESSURE.to_owned(),
        severity: if pressure >= judge.settings.critical_ratio {
            Severity::Critical
        } else {
            Severity::Warning
        },
        summary: format!("tasks of this node lose their CPUs: {what}"),
        evidence: of_node.into_iter().chain(of_cpus).chain(of_cpu).collect(),
        culprits: on_all.into_iter().chain(on_one).collect(),
        victims: vec![Party {
            who: "tasks of this node".to_owned(),
            share: if pressure > 0.0 {
                format!("interrupted for {:.0} % of the time", 100.0 * pressure)
            } else if all {
                format!("without their CPU for {:.0} % of the time", 100.0 * of_all)
            } else {
                format!("those on this CPU, for {:.0} % of the time", 100.0 * of_one)
            },
        }],
        remedies: if all && mostly_network(&node.softirqs) {
            advice::for_packets()
        } else {
            advice::for_interrupts(network)
        },
        follows_load: true,
    })
}

/// Kinds of softirqs in parentheses, how often each ran.
fn rates(judge: Judge<'_>, kinds: &[(String, u64)]) -> String {
    let seconds = judge.reading.window_seconds.max(f64::EPSILON);
    let rate = |(kind, count): &(String, u64)| format!("{kind} {:.0}/s", *count as f64 / seconds);
    let kinds: Vec<_> = kinds.iter().map(rate).collect();
    if kinds.is_empty() {
        String::new()
    } else {
        format!(" ({})", kinds.join(", "))
    }
}

/// Softirqs and interrupts of a CPU, each with its time, and the kinds that ran.
fn interrupts_of(judge: Judge<'_>, it: &InterruptedCpu) -> Vec<Party> {
    let kinds = rates(judge, &it.softirqs);
    let parts = [
        (
            format!("softirqs on CPU {}{kinds}", it.cpu),
            it.time.softirq,
        ),
        (format!("interrupts on CPU {}", it.cpu), it.time.irq),
    ];
    let mut parts: Vec<_> = parts.into_iter().filter(|(_, time)| *time > 0.0).collect();
    parts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let party = |(who, time): (String, f64)| Party {
        who,
        share: format!("{:.0} % of its time", 100.0 * judge.share(time)),
    };
    parts.into_iter().map(party).collect()
}

/// Whether the softirqs that ran most are those of received packets.
fn mostly_network(softirqs: &[(String, u64)]) -> bool {
    softirqs.first().is_some_and(|(kind, _)| kind == "NET_RX")
}

/// Whether most of what ran was the agent itself, which looks at all types of the kernel
/// when it starts. Those who waited for that will not wait again.
pub(super) fn agent_is_starting(reading: &Reading) -> bool {
    let all = reading.node.busy_seconds;
    all.is_some_and(|all| reading.agent_seconds > AGENT * all)
        && reading.agent_seconds > RUNNER * reading.window_seconds
}

fn any_throttled(judge: Judge<'_>) -> bool {
    let node = judge.node(Resource::Cpu).some;
    let held = judge.cgroups().map(|it| most_seconds(judge, it));
    held.sum::<f64>() > BY_QUOTA * node
}

/// The part of their time for which the CPUs were at work; `None` where `/proc/stat` does not tell.
/// The kernel's sum is of samples at each tick, which an emulated or very short window makes
/// coarse; cgroups are clocked.
fn busy_share(reading: &Reading) -> Option<f64> {
    let seconds = reading.node.busy_seconds?.max(in_cgroups(reading));
    Some(share_of_all(reading, seconds))
}

fn busy(reading: &Reading) -> Option<Evidence> {
    let evidence = |metric: &str, value: f64| Evidence {
        metric: metric.to_owned(),
        value,
        limit: None,
    };
    if let Some(busy) = busy_share(reading) {
        return Some(evidence(
            "busy time in /proc/stat, as a share of all CPUs",
            busy,
        ));
    }
    let least = share_of_all(reading, in_cgroups(reading));
    let metric = "usage_usec in cpu.stat of all cgroups, as a share of all CPUs";
    (least > 0.0).then(|| evidence(metric, least))
}

/// CPU time of all cgroups, those on top of the tree with what is below them.
fn in_cgroups(reading: &Reading) -> f64 {
    let on_top = reading
        .current()
        .filter(|it| it.path.matches('/').count() == 1);
    on_top.map(|it| it.cpu_seconds).sum()
}

/// Interrupts take CPUs from tasks too, where the kernel accounts for them.
fn irq_evidence(judge: Judge<'_>) -> Option<Evidence> {
    let share = judge.share(judge.node(Resource::Irq).some);
    (share > judge.settings.floor_ratio).then(|| Evidence {
        metric: "rate(nodemedic_psi_stall_seconds_total{resource=\"irq\",stall=\"full\",\
                 cgroup=\"node\"})"
            .to_owned(),
        value: share,
        limit: None,
    })
}

/// Who runs, most first.
fn runners(judge: Judge<'_>, victims: &[&CgroupReading]) -> Vec<Party> {
    let reading = judge.reading;
    let known = in_cgroups(reading);
    let all = reading.node.busy_seconds.unwrap_or(known).max(f64::EPSILON);
    let floor = RUNNER * reading.window_seconds;
    let is_victim = |it: &CgroupReading| {
        victims
            .iter()
            .any(|victim| victim.path == it.path || is_below(it, victim))
    };
    let mut runners: Vec<_> = judge
        .cgroups()
        .filter(|it| it.own_cpu_seconds > floor)
        .map(|it| (is_victim(it), Some(it), it.own_cpu_seconds))
        .collect();
    let rest = reading.node.busy_seconds.unwrap_or(known) - known;
    if rest > floor {
        runners.push((false, None, rest));
    }
    runners.sort_by(|(_, _, a), (_, _, b)| b.total_cmp(a));
    // Who waits is to blame last, unless its own tasks are what it waits for.
    let others = runners.iter().filter(|(is_victim, _, _)| !is_victim);
    if others.map(|(_, _, seconds)| seconds).sum::<f64>() > all / 2.0 {
        runners.sort_by_key(|(is_victim, _, _)| *is_victim);
    }
    runners
        .into_iter()
        .take(NAMED)
        .map(|(_, runner, seconds)| Party {
            who: runner.map_or_else(
                || "the kernel, and tasks in cgroups that the scan did not visit".to_owned(),
                |it| judge.who(&it.path),
            ),
            share: format!(
                "ran for {seconds:.1} s of CPU time, {:.0} % of all{}",
                (100.0 * seconds / all).min(100.0),
                runner.map_or_else(String::new, |it| probed::runners(judge, &it.path))
            ),
        })
        .collect()
}
