//! What was decided of an alert.

use serde::{Deserialize, Serialize};

use super::Alert;

/// What was decided of an alert, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// A treatment was begun.
    Begun,
    /// It could not be written, and what was is put back.
    Failed,
    /// One would have been, if the configuration allowed it to alerts.
    DryRun,
    /// This alert has begun one already.
    Duplicate,
    /// Something is against it.
    Refused,
    /// Something is against it that passes of itself.
    NotYet,
    /// It is resolved, and what it had begun is undone.
    Undone,
    /// It is resolved, and had begun nothing that is still active.
    NothingToUndo,
    /// It is resolved, and what it had begun stays, as configured.
    LeftAlone,
    /// It is of another node.
    OtherNode,
    /// It does not say of which node it is.
    NoNode,
    /// There were too many before it.
    TooMany,
}

impl Decision {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Begun,
        Self::Failed,
        Self::DryRun,
        Self::Duplicate,
        Self::Refused,
        Self::NotYet,
        Self::Undone,
        Self::NothingToUndo,
        Self::LeftAlone,
        Self::OtherNode,
        Self::NoNode,
        Self::TooMany,
    ];

    /// What labels, logs and answers call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Failed => "failed",
            Self::DryRun => "dry_run",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::NotYet => "not_yet",
            Self::Undone => "undone",
            Self::NothingToUndo => "nothing_to_undo",
            Self::LeftAlone => "left_alone",
            Self::OtherNode => "other_node",
            Self::NoNode => "no_node",
            Self::TooMany => "too_many",
        }
    }
}

/// What was decided of one alert, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// Its name.
    pub alertname: String,
    /// Which one it is.
    pub fingerprint: String,
    /// Which one it is, too.
    pub starts_at: String,
    /// What was decided.
    pub decision: Decision,
    /// The course that was begun, or undone, or that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub course: Option<u64>,
    /// With what it is treated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treatment: Option<String>,
    /// Why.
    pub why: String,
}

impl Ruling {
    /// A ruling on an alert, which is of no course.
    pub fn on(alert: &Alert, decision: Decision, why: impl Into<String>) -> Self {
        Self {
            alertname: alert.name().to_owned(),
            fingerprint: alert.fingerprint.clone(),
            starts_at: alert.starts_at.clone(),
            decision,
            course: None,
            treatment: None,
            why: why.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_has_one_name() {
        for decision in Decision::ALL {
            let json = serde_json::to_value(decision).unwrap();
            assert_eq!(json, decision.name());
        }
    }
}
