//! What of pressure stall information a node has.

use std::path::PathBuf;

use ebpf::psi_stall::Offsets;

use crate::{
    collector::Support,
    kernel::{
        Fact, KernelFacts,
        bpf::{self, Candidate, PlannedProbe, Probe, Program, fentry_or_kprobe},
        cgroup::Hierarchies,
        facts::VMLINUX,
    },
    model::{KernelObject, MemberPath, Missing, Needs},
};

const ENTER: &str = "psi_memstall_enter";
const LEAVE: &str = "psi_memstall_leave";
const COMPACTS: &str = "try_to_compact_pages";

const IMAGE: KernelObject = KernelObject(VMLINUX);

pub(super) const NEEDS: Needs = Needs {
    modules: &[],
    functions: &[
        IMAGE.function(ENTER),
        IMAGE.function(LEAVE),
        IMAGE.function(COMPACTS),
    ],
    members: &[PSI_FLAGS, COMMAND, CGROUPS, CGROUP, NODE, NODE_ID],
    sysctls: &[],
};

const PSI_FLAGS: MemberPath = IMAGE.member("task_struct.psi_flags");
const COMMAND: MemberPath = IMAGE.member("task_struct.comm");
const CGROUPS: MemberPath = IMAGE.member("task_struct.cgroups");
const CGROUP: MemberPath = IMAGE.member("css_set.dfl_cgrp");
const NODE: MemberPath = IMAGE.member("cgroup.kn");
const NODE_ID: MemberPath = IMAGE.member("kernfs_node.id");

/// The end comes first: a begin that is seen has an end that is.
pub(super) static MEMORY: Probe = Probe {
    name: "memory",
    gives: "which tasks wait for memory, how long each time, and in which kernel path",
    candidates: fentry_or_kprobe![VMLINUX =>
        "memory_leave", at entry of LEAVE,
        "memory_enter", at entry of ENTER
    ],
};

static COMPACTION: Probe = Probe {
    name: "compaction",
    gives: "the difference between compaction and reclaim, where the compiler merged both \
         functions",
    candidates: fentry_or_kprobe![VMLINUX =>
        "compaction", at entry of COMPACTS
    ],
};

static TASKS: Probe = Probe {
    name: "tasks",
    gives: "which commands wait for CPUs or disks, and which run meanwhile",
    candidates: &[Candidate::raw_tracepoint(&[
        Program::tracepoint("task_switched", "sched_switch"),
        Program::tracepoint("task_woken", "sched_wakeup"),
        Program::tracepoint("new_task_woken", "sched_wakeup_new"),
    ])],
};

/// What to read, and what to attach.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the tree of cgroups is, or why there is none.
    pub cgroups: Result<Hierarchies, Missing>,
    /// Whether the CPU controller is mounted in version 1.
    pub cpu_on_version_1: bool,
    /// Root of the tree of version 1 that has it.
    pub cpu_v1: Option<PathBuf>,
    /// Whether the memory controller is mounted in version 1.
    pub memory_on_version_1: bool,
    /// CPUs that are there; 1 where that is unknown.
    pub cpus: u32,
    /// The probes that are always there: what they count is rare.
    pub rare: Vec<PlannedProbe>,
    /// The probe that is attached only while tasks wait for CPUs or disks.
    pub tasks: PlannedProbe,
    /// Where the members lie that it reads.
    pub offsets: Offsets,
}

impl Plan {
    /// The root of the tree of cgroups of version 2, if there is one.
    pub(super) fn root(&self) -> Option<PathBuf> {
        self.cgroups.as_ref().ok()?.v2.clone()
    }
}

/// Pure: the same facts give the same plan.
pub(super) fn support(facts: &KernelFacts) -> Support<Plan> {
    // Where it could not be found out, the reading will tell.
    if facts.psi == Fact::Known(false) {
        return Support::No(Missing {
            what: "pressure stall information".to_owned(),
            why: "/proc/pressure does not exist, or is switched off".to_owned(),
            remedy: match facts.config.known().and_then(|config| config.get("PSI")) {
                Some(false) => "use a kernel with CONFIG_PSI, or set enabled = false in \
                                [ailments.psi_stall]"
                    .to_owned(),
                Some(true) | None => "boot with psi=1 on the kernel's command line (CONFIG_PSI is \
                                      required), or set enabled = false in [ailments.psi_stall]"
                    .to_owned(),
            },
        });
    }
    let offsets = offsets(facts);
    let found = facts.cgroups.known();
    let on_version_1 = |wanted: &str| {
        let mut controllers = found.iter().flat_map(|found| &found.v1);
        controllers.any(|it| it == wanted)
    };
    Support::Yes(Plan {
        cpu_on_version_1: on_version_1("cpu"),
        memory_on_version_1: on_version_1("memory"),
        cpu_v1: found.and_then(|found| found.cpu_v1.clone()),
        tasks: match &offsets {
            Ok(_) => bpf::plan(&TASKS, facts),
            Err(missing) => PlannedProbe::impossible(&TASKS, missing),
        },
        offsets: offsets.unwrap_or(Offsets::UNKNOWN),
        cgroups: cgroups(&facts.cgroups),
        cpus: facts.online_cpus.known().copied().unwrap_or(1).max(1),
        rare: vec![bpf::plan(&MEMORY, facts), bpf::plan(&COMPACTION, facts)],
    })
}

fn offsets(facts: &KernelFacts) -> Result<Offsets, Missing> {
    Ok(Offsets {
        task_psi_flags: bpf::offset(facts, PSI_FLAGS, 4)?,
        task_command: bpf::offset(facts, COMMAND, 16)?,
        task_cgroups: bpf::offset(facts, CGROUPS, 8)?,
        css_set_cgroup: bpf::offset(facts, CGROUP, 8)?,
        cgroup_node: bpf::offset(facts, NODE, 8)?,
        node_id: bpf::offset(facts, NODE_ID, 8)?,
    })
}

fn cgroups(found: &Fact<Hierarchies>) -> Result<Hierarchies, Missing> {
    let missing = |why: String, remedy: &str| {
        Err(Missing {
            what: "the tree of cgroups, version 2".to_owned(),
            why,
            remedy: remedy.to_owned(),
        })
    };
    match found {
        Fact::Unknown(why) => missing(
            why.clone(),
            "resolve this error; until then nodemedic measures the node alone",
        ),
        Fact::Known(found) if found.v2.is_some() => Ok(found.clone()),
        Fact::Known(found) => missing(
            match found.v1.as_slice() {
                [] => "this process sees no mount of it".to_owned(),
                v1 => format!("only version 1 is mounted, with {}", v1.join(", ")),
            },
            "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2; in a container \
             mount the host's /sys/fs/cgroup into it; until then nodemedic measures the node alone",
        ),
    }
}

/// Why some files of the cgroups are not there although the tree is.
pub(super) fn on_version_1(found: &Hierarchies) -> Option<Missing> {
    (!found.v1.is_empty()).then(|| Missing {
        what: format!("{} in version 2", found.v1.join(", ")),
        why: "these controllers are mounted in version 1, so cgroups of version 2 show waiting \
             and CPU time, but no limits, memory or disks; of version 1 nodemedic reads CPU quotas"
            .to_owned(),
        remedy: "boot with systemd.unified_cgroup_hierarchy=1".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{bpf::Hook, recorded};

    fn plan(facts: &KernelFacts) -> Plan {
        match support(facts) {
            Support::Yes(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    /// The newest kernel with a unified tree.
    fn capable() -> KernelFacts {
        let mut facts = recorded::newest();
        facts.cgroups = Fact::Known(Hierarchies {
            v2: Some(PathBuf::from("/sys/fs/cgroup")),
            v1: Vec::new(),
            cpu_v1: None,
        });
        facts
    }

    #[test]
    fn a_capable_kernel_misses_nothing() {
        let found = plan(&capable()).cgroups.expect("it has the tree");
        assert_eq!(on_version_1(&found), None);
    }

    fn hooks(planned: &PlannedProbe) -> Vec<Hook> {
        let candidates = planned.candidates.iter();
        candidates.map(|candidate| candidate.hook).collect()
    }

    #[test]
    fn every_recorded_kernel_has_its_cheapest_hooks_and_all_offsets() {
        for facts in recorded::all() {
            let (plan, release) = (plan(&facts), &facts.release);
            for probe in &plan.rare {
                assert_eq!(hooks(probe).first(), Some(&Hook::Fentry), "{release}");
            }
            assert_eq!(hooks(&plan.tasks), [Hook::RawTracepoint], "{release}");
            assert_ne!(plan.offsets, Offsets::UNKNOWN, "{release}");
        }
    }

    #[test]
    fn without_a_member_tracing_is_refused_by_name_and_the_rest_goes_on() {
        let mut facts = capable();
        facts.members.remove(PSI_FLAGS.path);
        let plan = plan(&facts);
        assert_eq!(hooks(&plan.tasks), []);
        let missing = format!("{:?}", plan.tasks.missing);
        assert!(missing.contains("task_struct.psi_flags"), "{missing}");
        for probe in &plan.rare {
            assert_eq!(hooks(probe).first(), Some(&Hook::Fentry));
        }
    }

    #[test]
    fn psi_that_is_off_is_told_with_its_remedy() {
        let mut facts = capable();
        facts.psi = Fact::Known(false);
        let Support::No(missing) = support(&facts) else {
            panic!("it is supported without PSI");
        };
        assert!(missing.remedy.contains("psi=1"), "{missing:?}");
    }

    #[test]
    fn what_could_not_be_found_out_is_tried() {
        let mut facts = capable();
        facts.psi = Fact::Unknown("for a test".to_owned());
        assert!(plan(&facts).cgroups.is_ok());
    }

    #[test]
    fn a_node_with_version_1_alone_is_measured_as_a_whole() {
        let mut facts = capable();
        let v1 = vec!["cpu".to_owned(), "memory".to_owned()];
        facts.cgroups = Fact::Known(Hierarchies {
            v1,
            ..Hierarchies::default()
        });
        let missing = plan(&facts).cgroups.expect_err("there is no tree");
        assert!(missing.why.contains("cpu, memory"), "{missing:?}");
    }

    #[test]
    fn a_hybrid_says_what_version_2_does_not_show() {
        let hybrid = Hierarchies {
            v2: Some(PathBuf::from("/sys/fs/cgroup/unified")),
            v1: vec!["memory".to_owned()],
            cpu_v1: None,
        };
        let missing = on_version_1(&hybrid).expect("memory is in version 1");
        assert!(missing.what.contains("memory"), "{missing:?}");
    }
}
