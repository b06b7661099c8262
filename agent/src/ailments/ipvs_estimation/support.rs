//! Which probes of the ailment a kernel supports, and in what its passes run.

use ebpf::ipvs_estimation::{Context, Offsets, UNKNOWN};

use crate::{
    ailments::Support,
    kernel::{
        Function, KernelFacts, MemberPath, Needs,
        bpf::{self, At, Candidate, Hook, PlannedProbe, Probe, Program},
        facts::{ModuleState, Symbol},
    },
    report::Missing,
};

pub(super) const MODULE: &str = "ip_vs";

pub(super) const RUN_ESTIMATION: &str = "net.ipv4.vs.run_estimation";
pub(super) const EST_CPULIST: &str = "net.ipv4.vs.est_cpulist";
pub(super) const EST_NICE: &str = "net.ipv4.vs.est_nice";

const TIMER: &str = "estimation_timer";
const WORK: &str = "estimation_work";
const CHAIN: &str = "ip_vs_chain_estimation";
const THREAD: &str = "ip_vs_estimation_kthread";

pub(super) const NEEDS: Needs = Needs {
    modules: &[MODULE],
    functions: &[
        function(TIMER),
        function(WORK),
        function(CHAIN),
        function(THREAD),
    ],
    members: &[
        IPVS_TIMER,
        IPVS_NET,
        IPVS_SWITCH,
        INUM,
        TASK_CPU,
        OLD_TASK_CPU,
    ],
    sysctls: &[RUN_ESTIMATION, EST_CPULIST, EST_NICE],
};

const IPVS_TIMER: MemberPath = member("netns_ipvs.est_timer");
const IPVS_NET: MemberPath = member("netns_ipvs.net");
const IPVS_SWITCH: MemberPath = member("netns_ipvs.sysctl_run_estimation");
const INUM: MemberPath = member("net.ns.inum");
const TASK_CPU: MemberPath = member("task_struct.thread_info.cpu");
/// Up to 5.15.
const OLD_TASK_CPU: MemberPath = member("task_struct.cpu");

const fn function(name: &'static str) -> Function {
    Function {
        name,
        module: MODULE,
    }
}

const fn member(path: &'static str) -> MemberPath {
    MemberPath {
        path,
        module: MODULE,
    }
}

const fn program(name: &'static str, at: At, function: &'static str) -> Program {
    Program {
        name,
        at,
        function,
        module: MODULE,
    }
}

/// At a tracepoint, which are all of the kernel itself.
const fn tracepoint(name: &'static str, tracepoint: &'static str) -> Program {
    Program {
        name,
        at: At::Entry,
        function: tracepoint,
        module: "vmlinux",
    }
}

/// The name of the probe on passes, whatever they run in.
pub(super) const PASSES: &str = "passes";
const PASSES_GIVE: &str = "how long each pass of the estimator holds its CPU";

/// Linux up to 6.1.
static TIMER_PASSES: Probe = Probe {
    name: PASSES,
    gives: PASSES_GIVE,
    candidates: &[
        Candidate {
            hook: Hook::Fentry,
            programs: &[
                program("timer_fexit", At::Return, TIMER),
                program("timer_fentry", At::Entry, TIMER),
            ],
        },
        Candidate {
            hook: Hook::Kprobe,
            programs: &[
                program("timer_kretprobe", At::Return, TIMER),
                program("timer_kprobe", At::Entry, TIMER),
            ],
        },
    ],
};

/// Kernels of vendors who moved it out of the softirq (alibaba/cloud-kernel 4.19).
static WORK_PASSES: Probe = Probe {
    name: PASSES,
    gives: PASSES_GIVE,
    candidates: &[
        Candidate {
            hook: Hook::Fentry,
            programs: &[
                program("work_fexit", At::Return, WORK),
                program("work_fentry", At::Entry, WORK),
            ],
        },
        Candidate {
            hook: Hook::Kprobe,
            programs: &[
                program("work_kretprobe", At::Return, WORK),
                program("work_kprobe", At::Entry, WORK),
            ],
        },
    ],
};

/// Linux from 6.2 on.
static CHAIN_PASSES: Probe = Probe {
    name: PASSES,
    gives: PASSES_GIVE,
    candidates: &[
        Candidate {
            hook: Hook::Fentry,
            programs: &[
                program("chain_fexit", At::Return, CHAIN),
                program("chain_fentry", At::Entry, CHAIN),
            ],
        },
        Candidate {
            hook: Hook::Kprobe,
            programs: &[
                program("chain_kretprobe", At::Return, CHAIN),
                program("chain_kprobe", At::Entry, CHAIN),
            ],
        },
    ],
};

static PACKETS: Probe = Probe {
    name: "packets",
    gives: "how long received packets waited for the end of a pass",
    candidates: &[Candidate {
        hook: Hook::RawTracepoint,
        programs: &[
            tracepoint("softirq_entry", "softirq_entry"),
            tracepoint("softirq_raise", "softirq_raise"),
        ],
    }],
};

static TASKS: Probe = Probe {
    name: "tasks",
    gives: "how long tasks that were woken waited for the end of a pass",
    candidates: &[Candidate {
        hook: Hook::RawTracepoint,
        programs: &[
            tracepoint("task_switched", "sched_switch"),
            tracepoint("task_woken", "sched_wakeup"),
            tracepoint("new_task_woken", "sched_wakeup_new"),
        ],
    }],
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
    match facts
        .modules
        .get(MODULE)
        .map(|module| (&module.state, module.users))
    {
        None | Some((ModuleState::Absent, _)) => return Support::Waiting,
        // Without a user there is no service, since each holds a reference.
        Some((ModuleState::Loaded, Some(0))) => return Support::Waiting,
        Some((ModuleState::Loaded | ModuleState::BuiltIn, _)) => {}
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
    let has = |function: &str| {
        let symbol = facts.functions.get(function)?.symbol.known()?;
        Some(*symbol != Symbol::Absent)
    };
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
