//! What is wrong on a node: the verdict of an ailment and the findings that it rests on.

use serde::{Deserialize, Serialize};

/// The state of an ailment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Measured, and nothing was found.
    Healthy,
    /// Not measured, so nothing can be said.
    Unknown,
    /// Something will hurt if it goes on.
    Warning,
    /// Something hurts now.
    #[serde(alias = "sick")]
    Critical,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Short name, unique in the ailment; the label of metrics and alerts.
    pub kind: String,
    /// How bad.
    pub severity: Severity,
    /// One sentence for an SRE.
    pub summary: String,
    /// What it rests on.
    pub evidence: Vec<Evidence>,
    /// Who causes it, worst first.
    pub culprits: Vec<Party>,
    /// Who suffers, worst first.
    pub victims: Vec<Party>,
    /// What can be done, safest first.
    pub remedies: Vec<String>,
    /// Whether it comes and goes with the load of the node, so that one that appears while a
    /// treatment is watched is no sign of harm.
    #[serde(default)]
    pub follows_load: bool,
}

/// A kind of finding, as the documentation has it.
#[derive(Debug, Serialize)]
pub struct FindingKind {
    /// [`Finding::kind`]
    pub kind: &'static str,
    /// Whether it is a warning, critical, or when which.
    pub severity: &'static str,
    /// The numbers that lead to it, with their limits and where they come from.
    pub numbers: &'static str,
    /// What looks like it and is something else, and how the two are told apart.
    pub not: &'static str,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It will hurt if it goes on.
    Warning,
    /// It hurts now.
    Critical,
}

/// A measured value beside the limit that it passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The metric, or the file and field it was read from.
    pub metric: String,
    /// The value in the metric's unit.
    pub value: f64,
    /// The limit it was held against, if any.
    pub limit: Option<f64>,
}

/// Who causes or suffers: an address, a port, a namespace, later a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Party {
    /// What it is, in words an SRE can look up.
    pub who: String,
    /// How much, in words with the unit.
    pub share: String,
}

impl Verdict {
    /// All, best first.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Unknown, Self::Warning, Self::Critical];

    /// What reports and labels call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl From<Severity> for Verdict {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Warning => Self::Warning,
            Severity::Critical => Self::Critical,
        }
    }
}
