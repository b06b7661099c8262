//! What the kernel says on its console when something is badly wrong.

/// Each is the start of a report after which no verdict of this guest can be trusted. They are the
/// kernel's own words, the same from 5.10 to 7.3.
const FAULTS: &[&str] = &[
    "Kernel panic",
    " BUG: ",
    "Oops: ",
    "general protection fault",
    "soft lockup",
    "hard LOCKUP",
    "rcu_sched self-detected stall",
    "rcu_preempt self-detected stall",
    "detected stalls on CPUs/tasks",
    "blocked for more than",
    "Out of memory and no killable processes",
];

/// The line, if it reports a fault.
pub(crate) fn fault(line: &str) -> Option<&str> {
    FAULTS
        .iter()
        .any(|fault| line.contains(fault))
        .then(|| line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_known() {
        for line in [
            "[   12.3] Kernel panic - not syncing: sysrq triggered crash",
            "[   12.3] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [x:1]",
            "[   12.3] rcu: INFO: rcu_sched detected stalls on CPUs/tasks: { 0-... }",
            "[  242.3] INFO: task x:1 blocked for more than 120 seconds.",
        ] {
            assert!(fault(line).is_some(), "{line}");
        }
    }

    #[test]
    fn what_a_boot_says_is_no_fault() {
        for line in [
            "[    0.4] ACPI: DEBUG: nothing",
            "[    0.5] RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable",
            "[    1.0] nf_conntrack: default automatic helper assignment has been turned off",
        ] {
            assert_eq!(fault(line), None);
        }
    }
}
