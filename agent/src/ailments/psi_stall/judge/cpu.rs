//! Waits for a CPU: because a quota is used up, or because others run.

use super::{CPU_CONTENTION, CPU_THROTTLED, IRQ_PRESSURE, Judge, NAMED, counter, is_below, probed};
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
    let held = |it: &CgroupReading| judge.share(it.throttled_seconds);
    let mut throttled: Vec<_> = judge
        .reading
        .cgroups
        .iter()
        .filter(|it| it.throttled_periods > 0 && held(it) > limit)
        .collect();
    throttled.sort_by(|a, b| b.throttled_seconds.total_cmp(&a.throttled_seconds));
    let worst = *throttled.first()?;
    let mut victims: Vec<_> = judge
        .stalled(Resource::Cpu)
        .into_iter()
        .filter(|it| is_throttled(judge, it))
        .collect();
    if victims.is_empty() {
        victims.clone_from(&throttled);
    }
    let mut evidence = vec![Evidence {
        metric: format!(
            "throttled_usec in cpu.stat of {}, as a share",
            judge.who(&worst.path)
        ),
        value: held(worst),
        limit: Some(limit),
    }];
    evidence.extend(counter(
        &format!(
            "nr_throttled in cpu.stat of {} in the window",
            judge.who(&worst.path)
        ),
        worst.throttled_periods,
    ));
    evidence.push(judge.pressure(Resource::Cpu, &victims));
    evidence.push(busy(judge.reading));
    let cpus = |it: &CgroupReading| match it.quota_cpus {
        Some(cpus) => format!("{cpus:.2} CPUs"),
        None => "a quota that was removed since".to_owned(),
    };
    let culprit = |it: &&CgroupReading| Party {
        who: format!("cpu.max of {}", judge.who(&it.path)),
        share: format!(
            "{}, used up in {} periods; throttled its tasks for {:.0} % of the time",
            cpus(it),
            it.throttled_periods,
            100.0 * held(it)
        ),
    };
    Some(Finding {
        kind: CPU_THROTTLED.to_owned(),
        severity: if held(worst) >= judge.settings.critical_ratio {
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
        remedies: advice::for_quota(&worst.path, worst.quota_cpus),
        follows_load: true,
    })
}

/// Not every kernel counts who is throttled as waiting; the quota's own clock does.
fn throttled_victims<'r>(judge: Judge<'r>, victims: &[&'r CgroupReading]) -> Vec<Party> {
    let party = |it: &&'r CgroupReading| {
        let quota = judge.upwards(&it.path).map(|it| it.throttled_seconds);
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
    let held = judge.upwards(&cgroup.path).map(|it| it.throttled_seconds);
    held.fold(0.0, f64::max) > BY_QUOTA * cgroup.waits.cpu.some
}

/// Tasks wait because others run.
pub(super) fn contention(judge: Judge<'_>) -> Option<Finding> {
    if agent_is_starting(judge.reading) {
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
    if victims.is_empty() && !nobody_known {
        return None;
    }
    let (pressure, busy) = (judge.pressure(Resource::Cpu, &victims), busy(judge.reading));
    let why = why(judge, &victims, pressure.value, busy.value);
    let mut evidence = vec![pressure, busy];
    evidence.extend(judge.cause_evidence(Resource::Cpu));
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
                share: format!("{allowed} of {} CPUs", judge.reading.cpus),
            }],
            advice::for_cpu_set(&cgroup.path),
        ),
        Why::Unknown(idle) => (
            format!(
                "cannot tell why: CPUs were idle for {:.0} % of the time, no quota was used up, and \
                 no CPU set of a cgroup is smaller than the node{}",
                100.0 * idle,
                if judge.reading.cpu_on_version_1 {
                    ". The CPU controller is mounted in version 1, and nodemedic does not read its quotas"
                } else {
                    ""
                }
            ),
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
            Why::Stolen(_) | Why::CpuSet(..) | Why::Busy | Why::Others => {
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

/// Why tasks wait for a CPU, as far as numbers explain it.
#[derive(Clone, Copy)]
enum Why<'r> {
    /// The hypervisor took this part of the CPU time.
    Stolen(f64),
    /// The set of this cgroup has so many CPUs.
    CpuSet(&'r CgroupReading, u32),
    /// CPUs were idle for this part of the time, and nothing explains it.
    Unknown(f64),
    /// All CPUs were busy.
    Busy,
    /// Others ran, and it is not known that CPUs were idle meanwhile.
    Others,
}

fn why<'r>(judge: Judge<'r>, victims: &[&'r CgroupReading], pressure: f64, busy: f64) -> Why<'r> {
    let reading = judge.reading;
    let stolen = share_of_cpus(reading, |cpu| cpu.steal).unwrap_or(0.0);
    if stolen >= STOLEN {
        return Why::Stolen(stolen);
    }
    // Tasks waited for longer than all CPUs together can have been busy: some were idle
    // while they waited, not only before.
    let idle = share_of_cpus(reading, |cpu| cpu.idle).unwrap_or(1.0 - busy);
    let kept_away = reading.cpus > 1 && pressure - busy > SURELY_IDLE && idle > SURELY_IDLE;
    if kept_away {
        let sets = victims.first().map(|worst| judge.upwards(&worst.path));
        let smaller = |it: &'r CgroupReading| {
            let allowed = it.allowed_cpus.filter(|allowed| *allowed < reading.cpus)?;
            Some(Why::CpuSet(it, allowed))
        };
        let mut sets = sets.into_iter().flatten().filter_map(smaller);
        return sets.next().unwrap_or(Why::Unknown(idle));
    }
    if busy >= BUSY { Why::Busy } else { Why::Others }
}

/// CPU time as a part of that of all CPUs in the window.
fn share_of_all(reading: &Reading, seconds: f64) -> f64 {
    let whole = reading.window_seconds * f64::from(reading.cpus.max(1));
    (seconds / whole.max(f64::EPSILON)).min(1.0)
}

/// The share of one thing that CPUs do; `None` where the reading does not have it.
fn share_of_cpus(reading: &Reading, part: impl Fn(&CpuReading) -> f64) -> Option<f64> {
    let cpu = reading.node.cpu.as_ref()?;
    Some(share_of_all(reading, part(cpu)))
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
    let pressure = judge.share(judge.node(Resource::Irq).some);
    let interrupted = judge.reading.node.interrupted.as_ref();
    let of_one = interrupted.map_or(0.0, |it| judge.share(it.time.irq + it.time.softirq));
    if pressure <= judge.settings.cpu_ratio && of_one < judge.settings.critical_ratio {
        return None;
    }
    let of_node = irq_evidence(judge).map(|evidence| Evidence {
        limit: Some(judge.settings.cpu_ratio),
        ..evidence
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
        Some(it) => format!(
            "interrupts and softirqs took {:.0} % of CPU {}",
            100.0 * of_one,
            it.cpu
        ),
        None => format!("interrupts took {:.0} % of the time", 100.0 * pressure),
    };
    let network = interrupted.is_some_and(mostly_network);
    Some(Finding {
        kind: IRQ_PRESSURE.to_owned(),
        severity: if pressure >= judge.settings.critical_ratio {
            Severity::Critical
        } else {
            Severity::Warning
        },
        summary: format!("tasks of this node lose their CPUs: {what}"),
        evidence: of_node.into_iter().chain(of_cpu).collect(),
        culprits: interrupted
            .map(|it| interrupts_of(judge, it))
            .unwrap_or_default(),
        victims: vec![Party {
            who: "tasks of this node".to_owned(),
            share: if pressure > 0.0 {
                format!("interrupted for {:.0} % of the time", 100.0 * pressure)
            } else {
                format!("those on this CPU, for {:.0} % of the time", 100.0 * of_one)
            },
        }],
        remedies: advice::for_interrupts(network),
        follows_load: true,
    })
}

/// Softirqs and interrupts of a CPU, each with its time, and the kinds that ran.
fn interrupts_of(judge: Judge<'_>, it: &InterruptedCpu) -> Vec<Party> {
    let kinds = it.softirqs.iter().map(|(kind, count)| {
        let rate = *count as f64 / judge.reading.window_seconds.max(f64::EPSILON);
        format!("{kind} {rate:.0}/s")
    });
    let kinds: Vec<_> = kinds.collect();
    let kinds = if kinds.is_empty() {
        String::new()
    } else {
        format!(" ({})", kinds.join(", "))
    };
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
fn mostly_network(it: &InterruptedCpu) -> bool {
    it.softirqs
        .first()
        .is_some_and(|(kind, _)| kind == "NET_RX")
}

/// Whether most of what ran was the agent itself, which looks at all types of the kernel
/// when it starts. Those who waited for that will not wait again.
pub(super) fn agent_is_starting(reading: &Reading) -> bool {
    reading.agent_seconds > AGENT * reading.node.busy_seconds
        && reading.agent_seconds > RUNNER * reading.window_seconds
}

fn any_throttled(judge: Judge<'_>) -> bool {
    let node = judge.node(Resource::Cpu).some;
    let cgroups = judge.reading.cgroups.iter();
    cgroups.map(|it| it.throttled_seconds).sum::<f64>() > BY_QUOTA * node
}

/// The part of their time for which the CPUs were at work. The kernel's sum is of samples
/// at each tick, which an emulated or very short window makes coarse; cgroups are clocked.
fn busy(reading: &Reading) -> Evidence {
    let seconds = reading.node.busy_seconds.max(in_cgroups(reading));
    Evidence {
        metric: "busy time in /proc/stat, as a share of all CPUs".to_owned(),
        value: share_of_all(reading, seconds),
        limit: None,
    }
}

/// CPU time of all cgroups, those on top of the tree with what is below them.
fn in_cgroups(reading: &Reading) -> f64 {
    let cgroups = reading.cgroups.iter();
    let on_top = cgroups.filter(|it| it.path.matches('/').count() == 1);
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
    let all = reading.node.busy_seconds.max(f64::EPSILON);
    let floor = RUNNER * reading.window_seconds;
    let is_victim = |it: &CgroupReading| {
        victims
            .iter()
            .any(|victim| victim.path == it.path || is_below(it, victim))
    };
    let mut runners: Vec<_> = reading
        .cgroups
        .iter()
        .filter(|it| it.own_cpu_seconds > floor)
        .map(|it| (is_victim(it), Some(it), it.own_cpu_seconds))
        .collect();
    let rest = reading.node.busy_seconds - in_cgroups(reading);
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
