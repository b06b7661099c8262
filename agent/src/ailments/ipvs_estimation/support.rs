//! Which probes of the ailment a kernel supports, and in what its passes run.

use ebpf::{
    ipvs_estimation::{Context, Offsets},
    shared::UNKNOWN,
};

use crate::{
    collector::Support,
    kernel::{
        KernelFacts,
        bpf::{self, Candidate, PlannedProbe, Probe, Program, fentry_or_kprobe},
    },
    model::{KernelObject, MemberPath, Missing, Needs},
};

pub(super) const MODULE: &str = "ip_vs";

pub(super) const RUN_ESTIMATION: &str = "net.ipv4.vs.run_estimation";
pub(super) const EST_CPULIST: &str = "net.ipv4.vs.est_cpulist";
pub(super) const EST_NICE: &str = "net.ipv4.vs.est_nice";

const TIMER: &str = "estimation_timer";
const WORK: &str = "estimation_work";
const CHAIN: &str = "ip_vs_chain_estimation";
const THREAD: &str = "ip_vs_estimation_kthread";

const IP_VS: KernelObject = KernelObject(MODULE);

pub(super) const NEEDS: Needs = Needs {
    modules: &[MODULE],
    functions: &[
        IP_VS.function(TIMER),
        IP_VS.function(WORK),
        IP_VS.function(CHAIN),
        IP_VS.function(THREAD),
    ],
    members: &[
        IPVS_TIMER,
        IPVS_NET,
        IPVS_SWITCH,
        IPVS_SERVICES,
        INUM,
        TASK_CPU,
        OLD_TASK_CPU,
    ],
    sysctls: &[RUN_ESTIMATION, EST_CPULIST, EST_NICE],
};

const IPVS_TIMER: MemberPath = IP_VS.member("netns_ipvs.est_timer");
const IPVS_NET: MemberPath = IP_VS.member("netns_ipvs.net");
const IPVS_SWITCH: MemberPath = IP_VS.member("netns_ipvs.sysctl_run_estimation");
const IPVS_SERVICES: MemberPath = IP_VS.member("netns_ipvs.num_services");
const INUM: MemberPath = IP_VS.member("net.ns.inum");
const TASK_CPU: MemberPath = IP_VS.member("task_struct.thread_info.cpu");
/// Up to 5.15.
const OLD_TASK_CPU: MemberPath = IP_VS.member("task_struct.cpu");

/// The name of the probe on passes, whatever they run in.
pub(super) const PASSES: &str = "passes";
const PASSES_GIVE: &str = "how long each pass of the estimator holds its CPU";

/// Linux up to 6.1.
static TIMER_PASSES: Probe = Probe {
    name: PASSES,
    gives: PASSES_GIVE,
    candidates: fentry_or_kprobe![MODULE =>
        "timer", at return of TIMER,
        "timer", at entry of TIMER
    ],
};

/// Kernels of vendors who moved it out of the softirq (alibaba/cloud-kernel 4.19).
static WORK_PASSES: Probe = Probe {
    name: PASSES,
    gives: PASSES_GIVE,
    candidates: fentry_or_kprobe![MODULE =>
        "work", at return of WORK,
        "work", at entry of WORK
    ],
};

/// Linux from 6.2 on.
static CHAIN_PASSES: Probe = Probe {
    name: PASSES,
    gives: PASSES_GIVE,
    candidates: fentry_or_kprobe![MODULE =>
        "chain", at return of CHAIN,
        "chain", at entry of CHAIN
    ],
};

static PACKETS: Probe = Probe {
    name: "packets",
    gives: "how long received packets waited for the end of a pass",
    candidates: &[Candidate::raw_tracepoint(&[
        Program::tracepoint("softirq_entry", "softirq_entry"),
        Program::tracepoint("softirq_raise", "softirq_raise"),
    ])],
};

static TASKS: Probe = Probe {
    name: "tasks",
    gives: "how long tasks that were woken waited for the end of a pass",
    candidates: &[Candidate::raw_tracepoint(&[
        Program::tracepoint("task_switched", "sched_switch"),
        Program::tracepoint("task_woken", "sched_wakeup"),
        Program::tracepoint("new_task_woken", "sched_wakeup_new"),
    ])],
};

/// What to attach, and what is known.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In what passes run; `None` where the kernel's symbols do not tell.
    pub context: Option<Context>,
    /// The probe on passes.
    pub passes: PlannedProbe,
    /// The probes that are attached only while passes are slow.
    pub waits: Vec<PlannedProbe>,
    /// Where the members lie.
    pub offsets: Offsets,
    /// Whether a pass tells its network namespace.
    pub namespaces: Result<(), Missing>,
    /// CPUs that could be there, each of which a pass visits.
    pub possible_cpus: Option<u32>,
    /// CPUs that are.
    pub online_cpus: Option<u32>,
}

/// Pure: the same facts give the same plan.
pub(super) fn support(facts: &KernelFacts) -> Support<Plan> {
    // Every service holds a reference.
    if !facts.is_used(MODULE) {
        return Support::Waiting;
    }
    let context = context(facts);
    let namespaces = namespace_offsets(facts);
    let task_cpu = task_cpu(facts);
    let [ipvs_est_timer, ipvs_net, net_inum] = *namespaces.as_ref().unwrap_or(&[UNKNOWN; 3]);
    Support::Yes(Plan {
        context,
        passes: bpf::plan(passes(context), facts),
        waits: waits(context, facts, task_cpu.as_ref().err()),
        offsets: Offsets {
            ipvs_est_timer,
            ipvs_net,
            ipvs_run_estimation: bpf::offset(facts, IPVS_SWITCH, 4).unwrap_or(UNKNOWN),
            ipvs_services: bpf::offset(facts, IPVS_SERVICES, 4).unwrap_or(UNKNOWN),
            net_inum,
            task_cpu: task_cpu.unwrap_or(UNKNOWN),
        },
        namespaces: namespaces.map(|_| ()),
        possible_cpus: facts.possible_cpus.known().copied(),
        online_cpus: facts.online_cpus.known().copied(),
    })
}

/// By the function that is there.
fn context(facts: &KernelFacts) -> Option<Context> {
    let has = |function: &str| facts.functions.get(function)?.exists();
    [
        (THREAD, Context::Kthread),
        (CHAIN, Context::Kthread),
        (WORK, Context::Workqueue),
        (TIMER, Context::Softirq),
    ]
    .into_iter()
    .find_map(|(function, context)| has(function)?.then_some(context))
}

fn passes(context: Option<Context>) -> &'static Probe {
    match context {
        Some(Context::Softirq) | None => &TIMER_PASSES,
        Some(Context::Workqueue) => &WORK_PASSES,
        Some(Context::Kthread) => &CHAIN_PASSES,
    }
}

/// Who can wait at all: packets for a softirq alone, tasks for whatever does not give
/// way.
fn waits(
    context: Option<Context>,
    facts: &KernelFacts,
    no_task_cpu: Option<&Missing>,
) -> Vec<PlannedProbe> {
    let tasks = || match no_task_cpu {
        None => bpf::plan(&TASKS, facts),
        Some(missing) => PlannedProbe::impossible(&TASKS, missing),
    };
    match context {
        Some(Context::Softirq) | None => vec![bpf::plan(&PACKETS, facts), tasks()],
        Some(Context::Workqueue) => vec![tasks()],
        Some(Context::Kthread) => Vec::new(),
    }
}

/// Of the timer, of the namespace's pointer, and of its number.
fn namespace_offsets(facts: &KernelFacts) -> Result<[u32; 3], Missing> {
    Ok([
        bpf::offset(facts, IPVS_TIMER, None)?,
        bpf::offset(facts, IPVS_NET, 8)?,
        bpf::offset(facts, INUM, 4)?,
    ])
}

fn task_cpu(facts: &KernelFacts) -> Result<u32, Missing> {
    bpf::offset(facts, TASK_CPU, 4)
        .or_else(|missing| bpf::offset(facts, OLD_TASK_CPU, 4).map_err(|_| missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        Fact,
        bpf::Hook,
        facts::{Member, ProgramType},
        recorded,
    };

    fn plan(facts: &KernelFacts) -> Plan {
        match support(facts) {
            Support::Yes(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    /// Linux 6.1: the last whose passes are softirqs, and with BTF of modules.
    fn softirq() -> KernelFacts {
        recorded::all().nth(1).expect("6.1 is recorded")
    }

    fn hooks(probe: &PlannedProbe) -> Vec<Hook> {
        probe.candidates.iter().map(|it| it.hook).collect()
    }

    #[test]
    fn every_recorded_kernel_has_its_context_and_its_cheapest_hook() {
        let wanted = [
            (Context::Softirq, Hook::Kprobe, 2, false),
            (Context::Softirq, Hook::Fentry, 2, true),
            (Context::Kthread, Hook::Fentry, 0, false),
            (Context::Kthread, Hook::Fentry, 0, false),
        ];
        for (facts, (context, hook, waits, namespaces)) in recorded::all().zip(wanted) {
            let plan = plan(&facts);
            let release = &facts.release;
            assert_eq!(plan.context, Some(context), "{release}");
            assert_eq!(hooks(&plan.passes).first(), Some(&hook), "{release}");
            assert_eq!(plan.waits.len(), waits, "{release}");
            for probe in &plan.waits {
                assert_eq!(hooks(probe), [Hook::RawTracepoint], "{release}");
            }
            // A thread has no timer, so its kernel has no such member.
            assert_eq!(plan.namespaces.is_ok(), namespaces, "{release}");
            assert_ne!(plan.offsets.task_cpu, UNKNOWN, "{release}");
        }
    }

    #[test]
    fn work_on_a_kworker_is_a_context_of_its_own_for_which_tasks_alone_wait() {
        let mut facts = softirq();
        let timer = facts.functions.remove(TIMER).expect("it is needed");
        facts.functions.insert(WORK.to_owned(), timer);
        let plan = plan(&facts);
        assert_eq!(plan.context, Some(Context::Workqueue));
        let waits: Vec<_> = plan.waits.iter().map(|it| it.probe.name).collect();
        assert_eq!(waits, ["tasks"]);
        assert_eq!(hooks(&plan.passes), [Hook::Fentry, Hook::Kprobe]);
    }

    #[test]
    fn without_a_member_passes_are_timed_and_of_no_namespace() {
        let mut facts = softirq();
        let why = Fact::Unknown("the structure has no such member".to_owned());
        facts.members.insert(IPVS_TIMER.path.to_owned(), why);
        let plan = plan(&facts);
        let missing = plan.namespaces.expect_err("no timer, no namespace");
        assert_eq!(missing.what, IPVS_TIMER.path);
        assert!(!plan.offsets.tell_namespaces());
        assert_eq!(hooks(&plan.passes).first(), Some(&Hook::Fentry));
    }

    #[test]
    fn without_the_cpu_of_a_task_packets_are_traced_alone() {
        let mut facts = softirq();
        for member in [TASK_CPU, OLD_TASK_CPU] {
            let other = Fact::Known(Member { offset: 8, size: 2 });
            facts.members.insert(member.path.to_owned(), other);
        }
        let plan = plan(&facts);
        assert_eq!(hooks(&plan.waits[0]), [Hook::RawTracepoint]);
        assert_eq!(hooks(&plan.waits[1]), []);
        let reasons = format!("{:?}", plan.waits[1].missing);
        assert!(reasons.contains("has 2 bytes here"), "{reasons}");
    }

    #[test]
    fn a_kernel_without_raw_tracepoints_says_so() {
        let mut facts = softirq();
        let refused = Fact::Known(false);
        facts
            .program_types
            .insert(ProgramType::RawTracepoint, refused);
        let plan = plan(&facts);
        for probe in &plan.waits {
            assert_eq!(hooks(probe), []);
            let reasons = format!("{:?}", probe.missing);
            assert!(
                reasons.contains("BPF programs for raw_tracepoint"),
                "{reasons}"
            );
        }
    }
}
