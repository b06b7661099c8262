//! Which agents there are.

use std::{
    io,
    net::SocketAddr,
    sync::PoisonError,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::{net::lookup_host, sync::Mutex, time::timeout};
use tracing::warn;

use super::{AgentAddress, Dispatch};

/// How long it may take to look a name up.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(5);

/// Time to the next attempt after a failed one, where the configured time is longer: alerts wait for
/// it.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Looks a name up, with a port.
type Lookup = fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Those of the configuration, and those of a name.
#[derive(Debug)]
pub struct Agents {
    fixed: Vec<AgentAddress>,
    service: Option<Service>,
}

/// The agents at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentSet {
    pub(super) addresses: Vec<AgentAddress>,
    /// Why there may be others.
    pub(super) doubt: Option<String>,
    /// Whether nobody could say yet which agents there are.
    pub(super) is_unknown: bool,
}

#[derive(Debug)]
struct Service {
    name: String,
    report_port: u16,
    webhook_port: u16,
    is_https: bool,
    every: Duration,
    lookup: Lookup,
    known: Mutex<Known>,
    /// Why no agent is known, until one is.
    unknown: std::sync::Mutex<Option<String>>,
}

/// What the name last meant.
#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    tried: Option<Instant>,
    /// Why the last attempt failed.
    failed: Option<String>,
}

impl Agents {
    /// As the configuration has it.
    pub fn new(config: &Dispatch) -> Self {
        Self::with(config, |name, port| {
            Box::pin(async move { Ok(lookup_host((name.as_str(), port)).await?.collect()) })
        })
    }

    pub(super) fn with(config: &Dispatch, lookup: Lookup) -> Self {
        let service = (!config.service.is_empty()).then(|| Service {
            name: config.service.clone(),
            report_port: config.report_port,
            webhook_port: config.webhook_port,
            is_https: !config.agent_ca_file.as_os_str().is_empty(),
            every: config.resolve_every,
            lookup,
            known: Mutex::default(),
            unknown: Some(format!("{} is not looked up yet", config.service)).into(),
        });
        Self {
            fixed: config.agents.clone(),
            service,
        }
    }

    /// Why the agents of the name are not known; `None` once they were.
    pub(super) fn unknown(&self) -> Option<String> {
        let service = self.service.as_ref()?;
        let unknown = service.unknown.lock();
        unknown.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those there are now.
    pub(super) async fn current(&self) -> AgentSet {
        let mut set = AgentSet {
            addresses: self.fixed.clone(),
            ..AgentSet::default()
        };
        if let Some(service) = &self.service {
            let (found, doubt) = service.addresses().await;
            set.is_unknown = found.is_empty();
            set.doubt = doubt;
            set.addresses.extend(
                found.into_iter().map(|address| {
                    AgentAddress::at(address, service.webhook_port, service.is_https)
                }),
            );
        }
        set
    }
}

impl Service {
    /// What the name means, looked up so often at most, and why that may be out of date. Where a
    /// lookup fails, it means what it meant before: agents that are gone do not answer, which
    /// counts.
    async fn addresses(&self) -> (Vec<SocketAddr>, Option<String>) {
        let mut known = self.known.lock().await;
        let next = match &known.failed {
            Some(_) => self.every.min(AGAIN_AFTER),
            None => self.every,
        };
        if known.tried.is_none_or(|tried| tried.elapsed() >= next) {
            match self.look_up().await {
                Ok(addresses) => {
                    known.addresses = addresses;
                    known.failed = None;
                    self.set_unknown(None);
                }
                Err(why) => {
                    if known.failed.as_ref() != Some(&why) {
                        warn!(service = self.name, "{why}");
                    }
                    if known.addresses.is_empty() {
                        self.set_unknown(Some(why.clone()));
                    }
                    known.failed = Some(why);
                }
            }
            known.tried = Some(Instant::now());
        }
        (known.addresses.clone(), known.failed.clone())
    }

    /// No address is a failure too: a name of a service has none while its agents start.
    async fn look_up(&self) -> Result<Vec<SocketAddr>, String> {
        let found = (self.lookup)(self.name.clone(), self.report_port);
        let why = |why: String| format!("look up {}: {why}", self.name);
        match timeout(LOOKED_UP_WITHIN, found).await {
            Ok(Ok(found)) if found.is_empty() => Err(why("it has no address".to_owned())),
            Ok(Ok(mut found)) => {
                found.sort_unstable();
                found.dedup();
                Ok(found)
            }
            Ok(Err(error)) => Err(why(error.to_string())),
            Err(_) => Err(why(format!(
                "no answer within {} s",
                LOOKED_UP_WITHIN.as_secs()
            ))),
        }
    }

    fn set_unknown(&self, why: Option<String>) {
        *self.unknown.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn config() -> Dispatch {
        Dispatch {
            service: "agents".to_owned(),
            resolve_every: Duration::ZERO,
            ..Dispatch::default()
        }
    }

    #[tokio::test]
    async fn a_name_that_fails_first_leaves_the_agents_unknown_until_it_does_not() {
        static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);
        let agents = Agents::with(&config(), |_, port| {
            Box::pin(async move {
                match ATTEMPTS.fetch_add(1, Ordering::Relaxed) {
                    0 | 3 => Err(io::Error::other("no such host")),
                    1 => Ok(Vec::new()),
                    _ => Ok(vec![([192, 0, 2, 1], port).into()]),
                }
            })
        });
        assert!(agents.unknown().unwrap().contains("not looked up"));
        for why in ["no such host", "it has no address"] {
            let set = agents.current().await;
            assert!(set.is_unknown);
            assert!(set.doubt.unwrap().contains(why), "{why}");
            assert!(agents.unknown().unwrap().contains(why), "{why}");
        }
        let set = agents.current().await;
        assert_eq!((set.addresses.len(), set.is_unknown), (1, false));
        assert_eq!((set.doubt, agents.unknown()), (None, None));
        // Later, those that were known stay, and there may be others.
        let set = agents.current().await;
        assert_eq!((set.addresses.len(), set.is_unknown), (1, false));
        assert!(set.doubt.unwrap().contains("no such host"));
        assert_eq!(agents.unknown(), None);
    }
}
