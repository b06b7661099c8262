//! What an operator can do where the kernel lacks something, or this process does: true of this
//! node. A switch that the kernel has is never asked for.

use super::PlannedProbe;
use crate::{
    kernel::facts::{Fact, KernelFacts, ProgramType},
    model::Missing,
};

/// A kernel with these switches, named without `CONFIG_`, or the reason why one that has them
/// refuses.
pub fn kernel_with(facts: &KernelFacts, switches: &[&str]) -> String {
    let named = |switches: &[&str]| {
        let switches: Vec<_> = switches.iter().map(|it| format!("CONFIG_{it}")).collect();
        match &switches[..] {
            [.., before, last] => {
                let first = &switches[..switches.len() - 2];
                let first: String = first.iter().map(|it| format!("{it}, ")).collect();
                format!("{first}{before} and {last}")
            }
            _ => switches.concat(),
        }
    };
    let config = match &facts.config {
        Fact::Known(config) => config,
        Fact::Unknown(_) => {
            return format!(
                "use a kernel with {}; whether this one has them could not be read: neither \
                 /proc/config.gz nor /boot/config-{} is there",
                named(switches),
                facts.release
            );
        }
    };
    let unset = switches.iter().copied();
    let unset: Vec<_> = unset.filter(|it| config.get(*it) != Some(&true)).collect();
    if unset.is_empty() {
        format!(
            "this kernel has {}, so the reason could not be found out; {}",
            named(switches),
            look_further(facts)
        )
    } else {
        format!("use a kernel with {}", named(&unset))
    }
}

/// What else keeps a kernel that could from it, as far as it was not visible.
fn look_further(facts: &KernelFacts) -> &'static str {
    match (&facts.lockdown, &facts.seccomp_filter) {
        (_, Fact::Known(true)) => {
            "this process has a seccomp filter: allow bpf(2) and perf_event_open(2) in its profile"
        }
        (Fact::Unknown(_), _) => SEE_LOCKDOWN,
        _ => "please report it with what `nodemedic probes` prints",
    }
}

const SEE_LOCKDOWN: &str =
    "a locked down kernel refuses as well: mount securityfs at /sys/kernel/security to see";

/// Root of another user namespace than the first has every capability, and none that counts for
/// BPF (`capable()`, kernel/capability.c).
pub(super) fn not_the_first_user_namespace(facts: &KernelFacts) -> Option<Missing> {
    (facts.first_user_namespace == Fact::Known(false)).then(|| Missing {
        what: "BPF programs".to_owned(),
        why: "this is not the first user namespace, and the kernel takes BPF programs from there \
              alone"
            .to_owned(),
        remedy: "run it as root of the node: not in a rootless or unprivileged container, and \
                 with hostUsers in a pod"
            .to_owned(),
    })
}

/// Why the kernel refuses programs of a type, with its error.
pub(super) fn refusal(facts: &KernelFacts, program_type: ProgramType) -> String {
    let error = facts.refusals.get(&program_type);
    let error = error.map_or_else(String::new, |error| format!(": {error}"));
    if is_confidential(&facts.lockdown) {
        format!("{LOCKED_DOWN}: it refuses them{error}")
    } else {
        format!("the kernel refuses them{error}")
    }
}

/// Whether the lockdown in force keeps kernel memory from this process. `integrity` keeps nothing
/// from it that a probe needs (security/lockdown/lockdown.c; include/linux/security.h,
/// `enum lockdown_reason`).
pub(super) fn is_confidential(lockdown: &Fact<String>) -> bool {
    lockdown
        .known()
        .is_some_and(|mode| mode == "confidentiality")
}

const LOCKED_DOWN: &str = "the kernel is locked down to confidentiality";

/// A program that the kernel refuses to load or to attach, with the kernel's words. Where the
/// lockdown explains the refusal, a sentence stands for them, and they go to the log.
pub(super) fn refused(what: String, words: &str, planned: &PlannedProbe) -> Missing {
    let forbidden = words.contains("Operation not permitted");
    let denied = if reads_are_refused(words) {
        match &planned.typed_reads {
            Fact::Known(_) => {
                "it lets BPF programs read its memory by types alone, and refuses this"
            }
            Fact::Unknown(_) => {
                "it lets BPF programs read its memory by types alone, and has no function \
                 bpf_rdonly_cast (Linux 6.2) that gives a type to an address"
            }
        }
    } else if !is_confidential(&planned.lockdown) {
        let remedy = match &planned.lockdown {
            Fact::Unknown(_) if forbidden => SEE_LOCKDOWN,
            Fact::Known(_) | Fact::Unknown(_) => {
                "none needed: nodemedic uses the next hook, or the baseline"
            }
        };
        return Missing {
            what,
            why: words.to_owned(),
            remedy: remedy.to_owned(),
        };
    } else if forbidden {
        "it opens no perf event for a kprobe"
    } else {
        "it refuses this"
    };
    tracing::debug!("{what}: {words}");
    Missing {
        what,
        why: format!("{LOCKED_DOWN}: {denied}"),
        remedy: UNLOCK.to_owned(),
    }
}

/// What to do where the kernel is locked down to confidentiality.
pub(super) const UNLOCK: &str = "boot with lockdown=integrity, under which all probes attach, if the node's policy allows it; until \
     then nodemedic uses the baseline";

/// Every kernel that the agent runs on has these helpers, but gives them to nobody under
/// `LOCKDOWN_BPF_READ_KERNEL` (kernel/trace/bpf_trace.c, `bpf_tracing_func_proto`).
pub(super) fn reads_are_refused(words: &str) -> bool {
    const REFUSALS: [&str; 3] = [
        "unknown func",
        "cannot use helper",
        "policy check failed for helper",
    ];
    words.contains("bpf_probe_read") && REFUSALS.iter().any(|it| words.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{bpf::Probe, recorded};

    fn with(switches: &[(&str, bool)]) -> KernelFacts {
        let switches = switches
            .iter()
            .map(|(name, set)| ((*name).to_owned(), *set));
        KernelFacts {
            config: Fact::Known(switches.collect()),
            ..recorded::newest()
        }
    }

    #[test]
    fn only_what_the_kernel_lacks_is_asked_for() {
        let facts = with(&[("KPROBES", true), ("KPROBE_EVENTS", false)]);
        assert_eq!(
            kernel_with(&facts, &["KPROBES", "KPROBE_EVENTS"]),
            "use a kernel with CONFIG_KPROBE_EVENTS"
        );
        let without = with(&[]);
        assert_eq!(
            kernel_with(&without, &["A", "B", "C"]),
            "use a kernel with CONFIG_A, CONFIG_B and CONFIG_C"
        );
    }

    #[test]
    fn where_the_kernel_has_all_the_reason_is_looked_for_elsewhere() {
        let mut facts = with(&[("BPF_SYSCALL", true)]);
        let text = |facts: &KernelFacts| kernel_with(facts, &["BPF_SYSCALL"]);
        assert!(!text(&facts).contains("use a kernel"), "{}", text(&facts));
        facts.lockdown = Fact::Unknown("no securityfs".to_owned());
        assert!(text(&facts).contains("mount securityfs"));
        facts.seccomp_filter = Fact::Known(true);
        assert!(text(&facts).contains("seccomp"));
        facts.config = Fact::Unknown("no file".to_owned());
        assert!(text(&facts).contains("could not be read"));
    }

    #[test]
    fn root_of_another_user_namespace_is_told_so() {
        let mut facts = recorded::newest();
        assert_eq!(
            not_the_first_user_namespace(&facts),
            None,
            "it was never asked"
        );
        facts.first_user_namespace = Fact::Known(false);
        assert!(not_the_first_user_namespace(&facts).is_some());
        facts.first_user_namespace = Fact::Known(true);
        assert_eq!(not_the_first_user_namespace(&facts), None);
    }

    fn planned(lockdown: &str) -> PlannedProbe {
        static PROBE: Probe = Probe {
            name: "probe",
            gives: "something",
            candidates: &[],
        };
        PlannedProbe {
            probe: &PROBE,
            candidates: Vec::new(),
            missing: Vec::new(),
            lockdown: Fact::Known(lockdown.to_owned()),
            typed_reads: Fact::Unknown("no such function".to_owned()),
            programs_hold_modules: Fact::Unknown("not asked for".to_owned()),
        }
    }

    #[test]
    fn a_perf_event_is_refused_by_confidentiality_and_by_nothing_below_it() {
        const WORDS: &str = "open a perf event: Operation not permitted (os error 1)";
        let refused = |planned: &PlannedProbe| refused(String::new(), WORDS, planned);
        let confidential = refused(&planned("confidentiality"));
        assert!(
            confidential.why.starts_with(LOCKED_DOWN),
            "{confidential:?}"
        );
        assert!(!confidential.why.contains("os error"), "{confidential:?}");
        assert!(confidential.remedy.contains("lockdown=integrity"));
        for mode in ["integrity", "none"] {
            let other = refused(&planned(mode));
            assert_eq!(other.why, WORDS);
            assert!(!other.remedy.contains("lockdown"), "{other:?}");
        }
        let unknown = PlannedProbe {
            lockdown: Fact::Unknown("no securityfs".to_owned()),
            ..planned("none")
        };
        assert!(refused(&unknown).remedy.contains("mount securityfs"));
    }

    #[test]
    fn a_helper_that_reads_memory_is_refused_by_the_lockdown() {
        let unknown = PlannedProbe {
            lockdown: Fact::Unknown("no securityfs".to_owned()),
            ..planned("none")
        };
        for words in [
            "load program x (Invalid argument); the verifier: unknown func bpf_probe_read_kernel#113",
            "program of this type cannot use helper bpf_probe_read_kernel#113",
            "policy check failed for helper bpf_probe_read_kernel#113",
        ] {
            for planned in [&planned("confidentiality"), &unknown] {
                let refused = refused(String::new(), words, planned);
                assert!(refused.why.starts_with(LOCKED_DOWN), "{refused:?}");
                assert!(refused.why.contains("bpf_rdonly_cast"), "{refused:?}");
                assert!(!refused.why.contains("#113"), "{refused:?}");
            }
        }
        let other = "unknown func bpf_get_current_task_btf#158";
        let other = refused(String::new(), other, &planned("none"));
        assert!(other.why.contains("bpf_get_current_task_btf"), "{other:?}");
    }

    #[test]
    fn the_words_of_the_verifier_are_not_told_of_a_kernel_that_is_locked_down() {
        let words =
            "load program x (Invalid argument); the verifier: R1 invalid mem access 'scalar'";
        let confidential = refused(String::new(), words, &planned("confidentiality"));
        assert!(
            confidential.why.starts_with(LOCKED_DOWN),
            "{confidential:?}"
        );
        assert!(!confidential.why.contains("R1"), "{confidential:?}");
        let integrity = refused(String::new(), words, &planned("integrity"));
        assert_eq!(integrity.why, words);
    }
}
