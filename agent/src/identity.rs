//! Whose report it is.

use std::time::SystemTime;

use crate::{
    model::{AilmentReport, NodeReport, TreatmentCounts, VERSION},
    time::unix_seconds,
};

/// What stands at the head of every report of this node.
#[derive(Clone, Debug)]
pub struct Identity {
    node: String,
    kernel: String,
}

impl Identity {
    /// This node, under a configured name or, where that is empty, its host name.
    pub fn of_this_node(name: &str) -> Self {
        let system = rustix::system::uname();
        let node = if name.is_empty() {
            system.nodename().to_string_lossy()
        } else {
            name.into()
        };
        Self {
            node: node.into_owned(),
            kernel: system.release().to_string_lossy().into_owned(),
        }
    }

    /// What reports call this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What is reported now.
    pub fn report(&self, ailments: Vec<AilmentReport>, series_dropped: u64) -> NodeReport {
        NodeReport {
            version: VERSION,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            unix_seconds: unix_seconds(SystemTime::now()),
            kernel: self.kernel.clone(),
            ailments,
            names: None,
            treatments: Vec::new(),
            treatment_counts: TreatmentCounts::default(),
            series_dropped,
        }
    }

    /// A node for tests.
    #[cfg(test)]
    pub fn fake() -> Self {
        Self {
            node: "node-7".to_owned(),
            kernel: "6.12.95".to_owned(),
        }
    }
}
