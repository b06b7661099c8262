//! How well the names of pods and containers are known.

use serde::{Deserialize, Serialize};

/// How well names are known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirectoryReport {
    /// Who tells them: cri, kubelet, or none.
    pub source: String,
    /// Where that is, or why there is none.
    pub place: String,
    /// Other sockets of runtimes that were asked, each with what came of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Pods that are known.
    pub pods: usize,
    /// Containers that are known, the sandboxes of pods among them.
    pub containers: usize,
    /// Pods and containers for which there was no room.
    pub cut: usize,
    /// When the last answer came, seconds since the epoch; absent before the first.
    pub answered_unix_seconds: Option<f64>,
    /// Time that the last answer took, seconds.
    pub answer_seconds: f64,
    /// Answers so far.
    pub answers: u64,
    /// Questions that got none.
    pub errors: u64,
    /// Why the last question got none; absent where it got one.
    pub error: Option<String>,
}
