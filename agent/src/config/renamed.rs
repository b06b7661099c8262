//! Names of earlier versions: each is refused with the one that it has now.

use std::fmt;

/// What had another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'n> {
    /// A table.
    Table,
    /// A key of this table.
    KeyOf(&'n str),
    /// A value in this table.
    WordIn(&'n str),
    /// A flag of this verb.
    FlagOf(&'n str),
}

/// A name that is not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// What had it.
    pub kind: Kind<'static>,
    /// As it was written, a flag without its dashes.
    pub old: &'static str,
    /// As it is written now.
    pub new: &'static str,
}

impl fmt::Display for Renamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dashes = if matches!(self.kind, Kind::FlagOf(_)) {
            "--"
        } else {
            ""
        };
        let (old, new) = (self.old, self.new);
        write!(f, "`{dashes}{old}` was renamed: use `{dashes}{new}`")
    }
}

/// The new name of this one, if it had another.
pub fn find(kind: Kind<'_>, old: &str) -> Option<Renamed> {
    all().find(|it| it.kind == kind && it.old == old)
}

/// All that were renamed.
pub fn all() -> impl Iterator<Item = Renamed> {
    let renamed = |&(kind, old, new): &(Kind<'static>, &'static str, &'static str)| Renamed {
        kind,
        old,
        new,
    };
    RENAMED.iter().map(renamed)
}

const AGENT: Kind<'_> = Kind::KeyOf("agent");
const POLICY: Kind<'_> = Kind::KeyOf("treatment_policy");
const WEBHOOK: Kind<'_> = Kind::KeyOf("webhook");
const DISPATCH: Kind<'_> = Kind::KeyOf("dispatch");
const MODES: Kind<'_> = Kind::WordIn("treatments");
const CONNTRACK: Kind<'_> = Kind::KeyOf("ailments.udp_conntrack");
const REUSE: Kind<'_> = Kind::KeyOf("ailments.ipvs_conn_reuse");
const ESTIMATION: Kind<'_> = Kind::KeyOf("ailments.ipvs_estimation");
const PSI: Kind<'_> = Kind::KeyOf("ailments.psi_stall");

/// What it was, its name then, its name now.
const RENAMED: &[(Kind<'_>, &str, &str)] = &[
    (Kind::Table, "treatment", "treatment_policy"),
    (AGENT, "drain", "shutdown_timeout"),
    (POLICY, "cool_down", "cooldown"),
    (POLICY, "back_off", "backoff"),
    (POLICY, "per_hour", "max_per_hour"),
    (WEBHOOK, "per_minute", "max_requests_per_minute"),
    (DISPATCH, "per_minute", "max_requests_per_minute"),
    (DISPATCH, "pages", "http_listen"),
    (CONNTRACK, "max_births", "max_tracked_entries"),
    (CONNTRACK, "snapshot_interval", "scan_interval"),
    (CONNTRACK, "snapshot_limit", "scan_timeout"),
    (CONNTRACK, "filling_within", "table_filling_within"),
    (CONNTRACK, "filling_ratio", "table_filling_ratio"),
    (CONNTRACK, "wasteful_ratio", "idle_entries_ratio"),
    (
        CONNTRACK,
        "wasteful_usage_ratio",
        "idle_entries_usage_ratio",
    ),
    (REUSE, "watch_for", "trace_linger"),
    (REUSE, "survey_interval", "scan_interval"),
    (REUSE, "survey_limit", "scan_timeout"),
    (REUSE, "remember", "window"),
    (ESTIMATION, "slow", "slow_threshold"),
    (ESTIMATION, "watch", "trace_when"),
    (ESTIMATION, "watch_for", "trace_linger"),
    (ESTIMATION, "census_interval", "scan_interval"),
    (ESTIMATION, "census_limit", "scan_timeout"),
    (ESTIMATION, "busy_ratio", "estimator_cpu_ratio"),
    (PSI, "armed", "triggers"),
    (PSI, "armed_cgroups", "trigger_cgroups"),
    (PSI, "watch_for", "trace_duration"),
    (PSI, "watch_pause", "trace_cooldown"),
    (PSI, "walk_limit", "scan_timeout"),
    (MODES, "dry_run", "dry-run"),
    (MODES, "hand", "manual"),
    (MODES, "agent", "auto"),
    (Kind::FlagOf("dispatch"), "pages", "http-listen"),
    (Kind::FlagOf("sweep"), "for", "duration"),
    (Kind::FlagOf("treat"), "for", "duration"),
    (Kind::FlagOf("treat"), "with", "treatment"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::parse;

    /// What is said of a file, and of the same with the new name.
    fn faults(text: impl Fn(&str) -> String, renamed: Renamed) -> [Vec<String>; 2] {
        [renamed.old, renamed.new].map(|name| {
            let faults = parse(&text(name)).err().unwrap_or_default();
            faults.into_iter().map(|fault| fault.message).collect()
        })
    }

    /// The new one need not take the value: what matters is that it is known.
    #[test]
    fn every_old_name_is_refused_with_the_one_that_is_taken() {
        for renamed in all() {
            let [old, new] = match renamed.kind {
                Kind::Table => faults(|name| format!("[{name}]\n"), renamed),
                Kind::KeyOf(table) => faults(|name| format!("[{table}]\n{name} = {{}}\n"), renamed),
                Kind::WordIn(table) => faults(
                    |name| format!("[{table}]\nudp_timeout = '{name}'\n"),
                    renamed,
                ),
                Kind::FlagOf(_) => continue,
            };
            let expected = format!("`{}` was renamed: use `{}`", renamed.old, renamed.new);
            assert!(old.len() == 1 && old[0].ends_with(&expected), "{old:?}");
            let known = |fault: &String| !fault.contains("unknown") && !fault.contains("renamed");
            assert!(new.iter().all(known), "{renamed}: {new:?}");
        }
    }

    #[test]
    fn a_name_of_another_table_is_only_unknown() {
        let drain = find(AGENT, "drain").unwrap();
        let [old, _] = faults(|name| format!("[log]\n{name} = 1\n"), drain);
        assert!(old[0].starts_with("unknown key `drain`"), "{old:?}");
    }

    #[test]
    fn a_table_of_the_old_name_is_checked_too() {
        let faults = parse("[treatment]\nper_hour = 6\nreapply = 'often'\n").unwrap_err();
        let messages: Vec<_> = faults
            .iter()
            .map(|it| (it.line, it.column, it.message.as_str()))
            .collect();
        assert_eq!(
            messages,
            [
                (1, 2, "`treatment` was renamed: use `treatment_policy`"),
                (2, 1, "`per_hour` was renamed: use `max_per_hour`"),
                (
                    3,
                    11,
                    "treatment_policy.reapply: \"often\" is not a whole number from 0 to 100"
                ),
            ]
        );
    }
}
