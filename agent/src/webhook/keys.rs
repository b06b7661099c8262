//! What every table has by which alerts come in.

use crate::keys::{Allowed, count};

/// Bytes that may come in at once.
pub(crate) const BODY: Allowed = count(1 << 10..=16 << 20);

/// Requests a minute.
pub(crate) const REQUESTS: Allowed = count(1..=60_000);

/// The usual labels that name a node: those of kube-state-metrics, of the relabelling that
/// Prometheus' own example has, of node_uname_info, and of every target.
pub(crate) fn node_labels() -> Vec<String> {
    let labels = ["node", "kubernetes_node", "nodename", "instance"];
    labels.map(str::to_owned).to_vec()
}
