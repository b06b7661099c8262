//! What every table has by which alerts come in.

use crate::keys::{Allowed, count};

/// Bytes that may come in at once.
pub(crate) const BODY: Allowed = count(1 << 10..=16 << 20);

/// Requests a minute.
pub(crate) const REQUESTS: Allowed = count(1..=60_000);

/// The usual labels that name a node.
pub(crate) fn node_labels() -> Vec<String> {
    ["node", "instance"].map(str::to_owned).to_vec()
}
