//! What of pressure stall information a node has.

use crate::{
    ailments::Support,
    kernel::{Fact, KernelFacts, Needs, cgroup::Hierarchies},
    report::Missing,
};

pub(super) const NEEDS: Needs = Needs {
    modules: &[],
    functions: &[],
    members: &[],
    sysctls: &[],
};

/// What to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where the tree of cgroups is, or why there is none.
    pub cgroups: Result<Hierarchies, Missing>,
    /// CPUs that are there; 1 where that is unknown.
    pub cpus: u32,
}

/// Pure: the same facts give the same plan.
pub(super) fn support(facts: &KernelFacts) -> Support<Plan> {
    // Where it could not be found out, the reading will tell.
    if facts.psi == Fact::Known(false) {
        return Support::No(Missing {
            what: "pressure stall information".to_owned(),
            why: "/proc/pressure is not there, or says that it is switched off".to_owned(),
            remedy: "boot with psi=1 on the kernel's command line, which takes a kernel with \
                     CONFIG_PSI; or set enabled = false in [ailments.psi_stall]"
                .to_owned(),
        });
    }
    Support::Yes(Plan {
        cgroups: cgroups(&facts.cgroups),
        cpus: facts.online_cpus.known().copied().unwrap_or(1).max(1),
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
        Fact::Unknown(why) => missing(why.clone(), "see the error; the node alone is measured"),
        Fact::Known(found) if found.v2.is_some() => Ok(found.clone()),
        Fact::Known(found) => missing(
            match found.v1.as_slice() {
                [] => "it is not mounted where this process sees it".to_owned(),
                v1 => format!("only version 1 is mounted, with {}", v1.join(", ")),
            },
            "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2; in a container \
             mount the host's /sys/fs/cgroup into it; the node alone is measured until then",
        ),
    }
}

/// Why some files of the cgroups are not there although the tree is.
pub(super) fn on_version_1(found: &Hierarchies) -> Option<Missing> {
    (!found.v1.is_empty()).then(|| Missing {
        what: format!("{} in version 2", found.v1.join(", ")),
        why: "these controllers are mounted in version 1, so cgroups of version 2 show who waits \
              and runs, but no limits, memory and disks"
            .to_owned(),
        remedy: "boot with systemd.unified_cgroup_hierarchy=1".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::kernel::recorded;

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
        });
        facts
    }

    #[test]
    fn a_capable_kernel_misses_nothing() {
        let found = plan(&capable()).cgroups.expect("it has the tree");
        assert_eq!(on_version_1(&found), None);
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
        facts.cgroups = Fact::Known(Hierarchies { v2: None, v1 });
        let missing = plan(&facts).cgroups.expect_err("there is no tree");
        assert!(missing.why.contains("cpu, memory"), "{missing:?}");
    }

    #[test]
    fn a_hybrid_says_what_version_2_does_not_show() {
        let hybrid = Hierarchies {
            v2: Some(PathBuf::from("/sys/fs/cgroup/unified")),
            v1: vec!["memory".to_owned()],
        };
        let missing = on_version_1(&hybrid).expect("memory is in version 1");
        assert!(missing.what.contains("memory"), "{missing:?}");
    }

    #[test]
    fn no_missing_fact_is_a_panic() {
        for facts in recorded::damaged() {
            let _any = support(&facts);
        }
    }
}
