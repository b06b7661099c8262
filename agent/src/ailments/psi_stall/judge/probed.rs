//! What the probes add to a finding: the commands of who waits, and the path of the
//! kernel in which they do.

use std::collections::BTreeMap;

use super::{Judge, is_at_or_below};
use crate::{
    ailments::psi_stall::{
        causes::Cause,
        measure::{CauseReading, ProbedReading, WaiterReading},
    },
    kernel::pressure::Resource,
    model::Evidence,
};

/// Commands that are named of one cgroup.
const COMMANDS: usize = 3;

impl<'r> Judge<'r> {
    const fn probed(self) -> Option<&'r ProbedReading> {
        self.reading.probed.as_ref()
    }

    /// Causes of waits of the window, the longest first, without the kernel's own work.
    pub(super) fn causes(self, resource: Resource) -> Vec<&'r CauseReading> {
        let all = self.probed().into_iter().flat_map(|it| &it.causes);
        let mut causes: Vec<_> = all
            .filter(|it| it.resource == resource && it.window > 0.0 && !it.cause.is_for_others())
            .collect();
        causes.sort_by(|a, b| b.window.total_cmp(&a.window));
        causes
    }

    /// The cause that made tasks of a cgroup, or below it, wait longest in the window.
    pub(super) fn main_cause(self, resource: Resource, path: &str) -> Option<Cause> {
        let mut by_cause: BTreeMap<Cause, f64> = BTreeMap::new();
        for it in self.waiters(resource, Some(path)) {
            *by_cause.entry(it.cause).or_default() += it.seconds;
        }
        let longest = by_cause.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        longest.map(|(cause, _)| cause)
    }

    /// Who waited in a cgroup or below it, or on the node, the longest first.
    fn waiters(
        self,
        resource: Resource,
        path: Option<&'r str>,
    ) -> impl Iterator<Item = &'r WaiterReading> {
        let all = self.probed().into_iter().flat_map(|it| &it.waiters);
        let of_path = move |it: &&WaiterReading| match (path, &it.path) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(path), Some(found)) => is_at_or_below(found, path),
        };
        all.filter(move |it| it.resource == resource && !it.cause.is_for_others())
            .filter(of_path)
    }

    /// The causes as evidence: tasks that wait at the same time are added up.
    pub(super) fn cause_evidence(self, resource: Resource) -> impl Iterator<Item = Evidence> {
        let causes = self.causes(resource).into_iter();
        let window = self.reading.window_seconds.max(f64::EPSILON);
        causes.map(move |it| Evidence {
            metric: format!(
                "rate(nodemedic_psi_stall_cause_seconds_total{{resource=\"{}\",cause=\"{}\"}})",
                resource.name(),
                it.cause.name()
            ),
            value: it.window / window,
            limit: None,
        })
    }

    /// The commands that waited longest, of a cgroup with those below it or of the node, in
    /// words that follow what the cgroup has waited.
    pub(super) fn commands(self, resource: Resource, path: Option<&'r str>) -> String {
        let phrases: Vec<_> = self
            .waiters(resource, path)
            .take(COMMANDS)
            .map(phrase)
            .collect();
        if phrases.is_empty() {
            String::new()
        } else {
            format!(": {}", phrases.join("; "))
        }
    }
}

/// The commands that ran longest in a cgroup, or below it, in words that follow what it ran.
pub(super) fn runners(judge: Judge<'_>, path: &str) -> String {
    let all = judge.probed().into_iter().flat_map(|it| &it.runners);
    let in_path = |path_of: &Option<String>| {
        let found = path_of.as_deref();
        found.is_some_and(|found| is_at_or_below(found, path))
    };
    let phrases: Vec<_> = all
        .filter(|it| in_path(&it.path))
        .take(COMMANDS)
        .map(|it| format!("{} {:.2} s", it.command, it.seconds))
        .collect();
    if phrases.is_empty() {
        String::new()
    } else {
        format!(
            "; by command, while tracing was active: {}",
            phrases.join(", ")
        )
    }
}

fn phrase(it: &WaiterReading) -> String {
    format!(
        "{} {} ({:.2} s in {}, the longest {:.0} ms)",
        it.command,
        it.cause.activity(),
        it.seconds,
        times(it.count),
        1e3 * it.longest_seconds
    )
}

fn times(count: u64) -> String {
    match count {
        1 => "1 wait".to_owned(),
        count => format!("{count} waits"),
    }
}
