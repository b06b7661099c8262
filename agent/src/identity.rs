//! Whose report it is.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tracing::warn;

use crate::{
    kernel::interfaces,
    model::{AilmentReport, NodeReport, TreatmentCounts, VERSION},
    time::unix_seconds,
};

/// The kernel locks its interfaces to list addresses, which seldom change.
const LISTED_EVERY: Duration = Duration::from_secs(60);

/// What stands at the head of every report of this node.
#[derive(Clone, Debug)]
pub struct Identity {
    node: String,
    host_name: String,
    kernel: String,
    addresses: Arc<Mutex<Addresses>>,
}

/// The addresses of the node, when they were last listed.
#[derive(Debug, Default)]
struct Addresses {
    known: Vec<IpAddr>,
    listed: Option<Instant>,
}

impl Identity {
    /// This node, under a configured name or, where that is empty, its host name.
    pub fn of_this_node(name: &str) -> Self {
        let system = rustix::system::uname();
        let host_name = system.nodename().to_string_lossy().into_owned();
        let node = if name.is_empty() { &host_name } else { name };
        Self {
            node: node.to_owned(),
            host_name,
            kernel: system.release().to_string_lossy().into_owned(),
            addresses: Arc::default(),
        }
    }

    /// What reports call this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// All names and addresses by which others may call the node.
    pub fn called(&self) -> Vec<String> {
        [vec![self.node.clone()], self.also_called()].concat()
    }

    /// What others may call the node beside [`Self::node`]: its host name, and its addresses as of the
    /// last minute. Where they cannot be listed, those that were known before.
    pub fn also_called(&self) -> Vec<String> {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if addresses
            .listed
            .is_none_or(|at| at.elapsed() >= LISTED_EVERY)
        {
            addresses.listed = Some(Instant::now());
            match interfaces::addresses() {
                Ok(found) => addresses.known = found,
                Err(error) => warn!("the addresses of this node cannot be listed: {error}"),
            }
        }
        // Of a machine that was never named, it means any.
        let is_name = self.host_name != self.node && !self.host_name.starts_with("localhost");
        let host_name = is_name.then(|| self.host_name.clone());
        let known = addresses.known.iter().map(ToString::to_string);
        host_name.into_iter().chain(known).collect()
    }

    /// What is reported now.
    pub fn report(&self, ailments: Vec<AilmentReport>, series_dropped: u64) -> NodeReport {
        NodeReport {
            version: VERSION,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            also_called: self.also_called(),
            unix_seconds: unix_seconds(SystemTime::now()),
            kernel: self.kernel.clone(),
            instance: None,
            routing: None,
            ailments,
            names: None,
            treatments: Vec::new(),
            treatment_trouble: None,
            treatment_counts: TreatmentCounts::default(),
            series_dropped,
        }
    }

    /// A node for tests.
    #[cfg(test)]
    pub fn fake() -> Self {
        Self {
            node: "node-7".to_owned(),
            host_name: "node-7".to_owned(),
            kernel: "6.12.95".to_owned(),
            addresses: Arc::new(Mutex::new(Addresses {
                known: Vec::new(),
                listed: Some(Instant::now()),
            })),
        }
    }
}
