//! Which agents there are.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{net::lookup_host, sync::Mutex, time::timeout};
use tracing::warn;

use super::{AgentAddress, Dispatch};

/// How long it may take to look a name up.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(5);

/// Those of the configuration, and those of a name.
#[derive(Debug)]
pub struct Agents {
    fixed: Vec<AgentAddress>,
    service: Option<Service>,
}

#[derive(Debug)]
struct Service {
    name: String,
    report_port: u16,
    webhook_port: u16,
    is_https: bool,
    every: Duration,
    known: Mutex<Known>,
}

/// What the name last meant.
#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    since: Option<Instant>,
}

impl Agents {
    /// As the configuration has it.
    pub fn new(config: &Dispatch) -> Self {
        let service = (!config.service.is_empty()).then(|| Service {
            name: config.service.clone(),
            report_port: config.report_port,
            webhook_port: config.webhook_port,
            is_https: !config.agent_ca_file.as_os_str().is_empty(),
            every: config.resolve_every,
            known: Mutex::default(),
        });
        Self {
            fixed: config.agents.clone(),
            service,
        }
    }

    /// Those there are now.
    pub async fn addresses(&self) -> Vec<AgentAddress> {
        let mut addresses = self.fixed.clone();
        if let Some(service) = &self.service {
            let found = service.addresses().await.into_iter();
            addresses.extend(
                found.map(|it| AgentAddress::at(it, service.webhook_port, service.is_https)),
            );
        }
        addresses
    }
}

impl Service {
    /// What the name means, looked up so often at most. Where that fails, it means what it
    /// meant before: agents that are gone do not answer, which counts.
    async fn addresses(&self) -> Vec<SocketAddr> {
        let mut known = self.known.lock().await;
        if known
            .since
            .is_some_and(|since| since.elapsed() < self.every)
        {
            return known.addresses.clone();
        }
        known.since = Some(Instant::now());
        let found = lookup_host((self.name.as_str(), self.report_port));
        match timeout(LOOKED_UP_WITHIN, found).await {
            Ok(Ok(found)) => {
                known.addresses = found.collect();
                known.addresses.sort_unstable();
                known.addresses.dedup();
            }
            Ok(Err(error)) => warn!(service = self.name, "look it up: {error}"),
            Err(_) => warn!(service = self.name, "look it up: it took too long"),
        }
        known.addresses.clone()
    }
}
