//! Counters of the kernel's maps, taken together.

use crate::model::ProgramStats;

/// Adds counters to others, one by one.
pub(super) fn add<'a>(
    sums: impl Iterator<Item = &'a mut u64>,
    more: impl Iterator<Item = &'a u64>,
) {
    sums.zip(more).for_each(|(sum, more)| *sum += more);
}

/// Takes what counters were before from what they are.
pub(super) fn subtract<'a>(
    from: impl Iterator<Item = &'a mut u64>,
    less: impl Iterator<Item = &'a u64>,
) {
    from.zip(less).for_each(|(from, less)| *from -= less);
}

/// Events that the programs of all CPUs counted as lost, by the names of the reasons in
/// the order of the ABI, and runs that the kernel left out.
pub(super) fn lost<const N: usize>(
    reasons: [&str; N],
    per_cpu: impl Iterator<Item = [u64; N]>,
    programs: &[ProgramStats],
) -> Vec<(String, u64)> {
    let mut sums = [0; N];
    for lost in per_cpu {
        add(sums.iter_mut(), lost.iter());
    }
    let missed = programs
        .iter()
        .map(|program| program.recursion_misses)
        .sum();
    let lost = reasons.into_iter().zip(sums);
    lost.chain([("missed", missed)])
        .map(|(reason, events)| (reason.to_owned(), events))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_all_cpus_are_summed_by_reason_and_missed_runs_come_last() {
        let program = ProgramStats {
            name: "confirm".to_owned(),
            runs: 9,
            run_seconds: 0.0,
            recursion_misses: 2,
        };
        let per_cpu = [[1, 0], [3, 5]].into_iter();
        let lost = lost(["read", "call"], per_cpu, &[program.clone(), program]);
        let wanted = [("read", 4), ("call", 5), ("missed", 4)];
        assert_eq!(lost, wanted.map(|(name, events)| (name.to_owned(), events)));
    }
}
