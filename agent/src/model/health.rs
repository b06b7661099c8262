//! How a node is, as far as it takes to tell whether a treatment has helped or harmed.

use serde::{Deserialize, Serialize};

use super::{AilmentReport, Evidence, Finding, NodeReport, Severity, Verdict};

/// A finding that stays has got better if what it rests on is less than this part.
const BETTER: f64 = 0.8;

/// The state of each ailment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthSnapshot(Vec<AilmentHealth>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct AilmentHealth {
    ailment: String,
    verdict: Verdict,
    #[serde(alias = "signs")]
    findings: Vec<FindingHealth>,
}

/// A finding, without its words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FindingHealth {
    kind: String,
    severity: Severity,
    /// What it rests on.
    evidence: Vec<Evidence>,
    /// [`Finding::follows_load`]
    #[serde(default)]
    follows_load: bool,
}

impl HealthSnapshot {
    /// The node as this report has it.
    pub fn of(report: &NodeReport) -> Self {
        Self(report.ailments.iter().map(AilmentHealth::of).collect())
    }

    /// Whether an ailment has got better since: the findings of these kinds are gone, or
    /// none is as severe, or what they rest on is much less. Nobody knows where nothing
    /// was measured, which proves nothing.
    pub fn improved(&self, now: &NodeReport, ailment: &str, kinds: &[String]) -> bool {
        let now = Self::of(now);
        let (Some(before), Some(now)) = (self.get(ailment), now.get(ailment)) else {
            return false;
        };
        if now.verdict == Verdict::Unknown {
            return false;
        }
        let (before, now) = (before.worst(kinds), now.worst(kinds));
        match (before, now) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(now)) => {
                now.severity < before.severity
                    || now.severity == before.severity && now.is_less_than(before)
            }
        }
    }

    /// The first ailment, other than the treated one, that has got worse since, by more than
    /// what follows the load of the node anyhow.
    pub fn harmed<'r>(&self, now: &'r NodeReport, treated: &str) -> Option<&'r str> {
        let others = now.ailments.iter().filter(|it| it.name != treated);
        let worse = |it: &&AilmentReport| {
            self.get(&it.name).is_some_and(|before| {
                before.verdict != Verdict::Unknown
                    && it.verdict > before.verdict
                    && AilmentHealth::of(it).steadily() > before.steadily()
            })
        };
        others.into_iter().find(worse).map(|it| it.name.as_str())
    }

    fn get(&self, ailment: &str) -> Option<&AilmentHealth> {
        self.0.iter().find(|vital| vital.ailment == ailment)
    }
}

impl AilmentHealth {
    fn of(report: &AilmentReport) -> Self {
        Self {
            ailment: report.name.clone(),
            verdict: report.verdict,
            findings: report.findings.iter().map(FindingHealth::of).collect(),
        }
    }

    /// The worst of the findings that do not come and go with the load.
    fn steadily(&self) -> Option<Severity> {
        let steady = self.findings.iter().filter(|finding| !finding.follows_load);
        steady.map(|finding| finding.severity).max()
    }

    fn worst(&self, kinds: &[String]) -> Option<&FindingHealth> {
        let named = self.findings.iter().filter(|it| kinds.contains(&it.kind));
        named.max_by_key(|finding| finding.severity)
    }
}

impl FindingHealth {
    fn of(finding: &Finding) -> Self {
        Self {
            kind: finding.kind.clone(),
            severity: finding.severity,
            evidence: finding.evidence.clone(),
            follows_load: finding.follows_load,
        }
    }

    /// Something that it rests on is much less, and nothing is much more.
    fn is_less_than(&self, before: &Self) -> bool {
        let known = |now: &Evidence| {
            let before = before.evidence.iter().find(|it| it.metric == now.metric)?;
            Some((excess(now), excess(before)))
        };
        let changes: Vec<_> = self.evidence.iter().filter_map(known).collect();
        let less = changes.iter().any(|(now, before)| *now < BETTER * before);
        let more = changes.iter().any(|(now, before)| *now * BETTER > *before);
        less && !more
    }
}

/// How far a value is beyond its limit. Some limits are the least that is well, as of
/// the seconds until a table is full.
fn excess(evidence: &Evidence) -> f64 {
    let value = evidence.value;
    match evidence.limit {
        Some(limit) if limit > 0.0 && value < limit => limit / value.max(f64::EPSILON),
        Some(limit) if limit > 0.0 => value / limit,
        Some(_) | None => value,
    }
}
