//! What a probe reports of itself: the hook in use, or what is missing and how to fix it.

use serde::{Deserialize, Serialize};

/// One probe of an ailment on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What it counts, as the table of probes calls it.
    pub name: String,
    /// The hook in use, as `fexit`, `kprobe`.
    pub hook: Option<String>,
    /// The reasons for which a cheaper hook, or any, is not in use.
    pub missing: Vec<Missing>,
}

/// Something that this kernel, or this process, does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// Why that is so, or how it was found out.
    pub why: String,
    /// What an operator can do about it.
    pub remedy: String,
}

impl Missing {
    /// No probe of an ailment could be attached, for this error.
    pub fn all_probes(error: &anyhow::Error) -> Self {
        Self {
            what: "all probes".to_owned(),
            why: format!("{error:#}"),
            remedy: "resolve this error; until then nodemedic uses the baseline".to_owned(),
        }
    }
}

impl ProbeReport {
    /// The row of something that is not measured, for one reason.
    pub fn not_measured(name: &str, missing: &Missing) -> Self {
        Self {
            name: name.to_owned(),
            hook: None,
            missing: vec![missing.clone()],
        }
    }
}

/// Run statistics of one BPF program, as the kernel keeps them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgramStats {
    /// Name of the program.
    pub name: String,
    /// How often it ran while statistics were on.
    pub runs: u64,
    /// Total time of those runs, seconds.
    pub run_seconds: f64,
    /// Runs that the kernel left out: while the program was running already, or, of a
    /// kprobe and from Linux 6.7 on, while the CPU was in any other probe.
    pub recursion_misses: u64,
}

/// The probes that are not attached, those with the same reasons together.
pub fn missing_by_probe(probes: &[ProbeReport]) -> Vec<(Vec<&str>, &[Missing])> {
    let mut groups: Vec<(Vec<&str>, &[Missing])> = Vec::new();
    for probe in probes.iter().filter(|probe| probe.hook.is_none()) {
        match groups
            .iter_mut()
            .find(|(_, missing)| *missing == probe.missing)
        {
            Some((names, _)) => names.push(&probe.name),
            None => groups.push((vec![&probe.name], &probe.missing)),
        }
    }
    groups
}
