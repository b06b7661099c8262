//! How all agents are.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use hyper::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::AgentAddress;
use crate::{
    http::Client,
    model::RunState,
    webhook::{Fit, Host, fit},
};

/// Agents that are asked at a time.
const AT_ONCE: usize = 32;

/// All of it, however many do not answer.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// What the agents say at one time.
#[derive(Clone, Debug, Default)]
pub struct AgentPoll {
    /// One of each node.
    agents: Vec<Agent>,
}

/// One agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) address: AgentAddress,
    /// All that it is known by: what its report says, what the configuration calls it, and the
    /// addresses at which it is asked.
    known_by: Vec<Host>,
    pub(super) state: AgentState,
}

/// The agent of a node that an alert names.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// This one.
    One(&'a Agent),
    /// More than one fits as well, and nobody knows which is meant.
    Many(Vec<&'a Agent>),
    /// None fits.
    None,
}

/// How an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AgentState {
    /// It answers.
    Reachable {
        /// What its report calls the node.
        node: String,
        /// The names and addresses that its report has beside that.
        also_called: Vec<String>,
        /// Whether a treatment is active.
        treats: bool,
    },
    /// It does not.
    Unreachable {
        /// Why.
        why: String,
    },
}

/// As much of a report as counts.
#[derive(Deserialize)]
struct Report {
    node: String,
    #[serde(default)]
    also_called: Vec<String>,
    treatments: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    state: RunState,
}

impl AgentPoll {
    /// Asks all. Those who do not come to answer in time count as those who do not.
    pub(super) async fn take(client: &Client, addresses: Vec<AgentAddress>) -> Self {
        let until = Instant::now() + TAKEN_WITHIN;
        let asked = addresses.into_iter().map(|address| async move {
            let state = timeout_at(until, ask(client, &address)).await;
            let state = state.unwrap_or_else(|_| AgentState::Unreachable {
                why: "there are too many agents that do not answer".to_owned(),
            });
            Agent::new(address, state)
        });
        let agents: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        Self::of(agents)
    }

    /// An agent that has two addresses is one, and known by both.
    pub(super) fn of(agents: Vec<Agent>) -> Self {
        let mut kept: Vec<Agent> = Vec::new();
        let mut places = HashMap::new();
        for agent in agents {
            let node = agent.node().map(str::to_owned);
            match node.as_ref().and_then(|node| places.get(node)) {
                Some(&first) => {
                    let first: &mut Agent = &mut kept[first];
                    first.known_by.extend(agent.known_by);
                }
                None => {
                    places.extend(node.map(|node| (node, kept.len())));
                    kept.push(agent);
                }
            }
        }
        Self { agents: kept }
    }

    /// How many agents there are.
    pub fn known(&self) -> usize {
        self.agents.len()
    }

    /// Those with an active treatment.
    pub fn treating(&self) -> usize {
        self.count(|state| matches!(state, AgentState::Reachable { treats: true, .. }))
    }

    /// Those that do not answer.
    pub fn unreachable(&self) -> usize {
        self.count(|state| matches!(state, AgentState::Unreachable { .. }))
    }

    fn count(&self, is: impl Fn(&AgentState) -> bool) -> usize {
        self.agents.iter().filter(|agent| is(&agent.state)).count()
    }

    /// The agent of a node, as an alert names it: the one that it fits best.
    pub(super) fn find(&self, label: &str) -> Found<'_> {
        let host = Host::of(label);
        let fits = |agent: &'_ Agent| host.fit(&agent.known_by);
        let best = self.agents.iter().map(fits).max().unwrap_or(Fit::No);
        if best == Fit::No {
            return Found::None;
        }
        let of_best = self.agents.iter().filter(|agent| fits(agent) == best);
        let mut of_best: Vec<_> = of_best.collect();
        // What an agent says of itself is worth more than what the configuration calls another.
        let by_itself =
            |agent: &&Agent| agent.node().is_some_and(|node| fit(label, &[node]) == best);
        if of_best.len() > 1 && of_best.iter().filter(|agent| by_itself(agent)).count() == 1 {
            of_best.retain(by_itself);
        }
        match of_best[..] {
            [one] => Found::One(one),
            _ => Found::Many(of_best),
        }
    }

    /// What the first few agents are called, for a message.
    pub(super) fn names(&self) -> String {
        listed(&self.agents.iter().collect::<Vec<_>>())
    }

    /// An agent of which nobody knows what node it is.
    pub(super) fn nameless(&self) -> Option<&Agent> {
        let nameless = |agent: &&Agent| {
            agent.address.node.is_none() && matches!(agent.state, AgentState::Unreachable { .. })
        };
        self.agents.iter().find(nameless)
    }
}

/// What agents are called, for a message.
pub(super) fn listed(agents: &[&Agent]) -> String {
    const LISTED: usize = 5;
    let name = |agent: &&Agent| match agent.node() {
        Some(node) => node.to_owned(),
        None => agent.address.name(),
    };
    let mut names: Vec<_> = agents.iter().take(LISTED).map(name).collect();
    if agents.len() > LISTED {
        names.push(format!("{} more", agents.len() - LISTED));
    }
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

impl Agent {
    pub(super) fn new(address: AgentAddress, state: AgentState) -> Self {
        let mut agent = Self {
            address,
            known_by: Vec::new(),
            state,
        };
        agent.known_by = agent.called().into_iter().map(Host::of).collect();
        agent
    }

    /// What its report calls its node.
    fn node(&self) -> Option<&str> {
        match &self.state {
            AgentState::Reachable { node, .. } => Some(node),
            AgentState::Unreachable { .. } => None,
        }
    }

    /// Where it is asked. By a loopback address the node is not meant: each has one.
    fn hosts(&self) -> impl Iterator<Item = &str> {
        let AgentAddress {
            report, webhook, ..
        } = &self.address;
        let hosts = [&report.host, &webhook.host].map(String::as_str);
        let is_own = |host: &&str| match host.parse::<IpAddr>() {
            Ok(address) => !address.is_loopback(),
            Err(_) => !host.eq_ignore_ascii_case("localhost"),
        };
        hosts.into_iter().filter(is_own)
    }

    /// All its names and addresses.
    fn called(&self) -> Vec<&str> {
        let reported: &[String] = match &self.state {
            AgentState::Reachable { also_called, .. } => also_called,
            AgentState::Unreachable { .. } => &[],
        };
        let named = self.node().into_iter().chain(self.address.node.as_deref());
        let reported = reported.iter().map(String::as_str);
        let all = named.chain(reported).chain(self.hosts());
        all.filter(|name| !name.is_empty()).collect()
    }
}

async fn ask(client: &Client, address: &AgentAddress) -> AgentState {
    match report(client, address).await {
        Ok(Report {
            node,
            also_called,
            treatments,
        }) => {
            let active = |it: &Run| {
                matches!(
                    it.state,
                    RunState::Intended | RunState::Applied | RunState::Confirmed
                )
            };
            let treats = treatments.iter().any(active);
            if address
                .node
                .as_ref()
                .is_some_and(|named| fit(named, &[&node]) == Fit::No)
            {
                warn!(
                    named = address.node,
                    node, "an agent calls itself otherwise"
                );
            }
            AgentState::Reachable {
                node,
                also_called,
                treats,
            }
        }
        Err(why) => {
            debug!(agent = address.name(), "unreachable: {why}");
            AgentState::Unreachable { why }
        }
    }
}

async fn report(client: &Client, address: &AgentAddress) -> Result<Report, String> {
    let answer = client.get(&address.report, "/report").await?;
    if answer.code != StatusCode::OK {
        let body = String::from_utf8_lossy(&answer.body);
        return Err(format!(
            "{}/report: {}: {}",
            address.report,
            answer.code,
            body.trim()
        ));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{}/report is no report: {error}", address.report))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn agent(named: Option<&str>, state: AgentState) -> Agent {
        let text = format!("{} http://a:1 http://a:2", named.unwrap_or("x"));
        let mut address = AgentAddress::try_from(text).unwrap();
        address.node = named.map(str::to_owned);
        Agent::new(address, state)
    }

    pub(crate) fn there(node: &str, treats: bool) -> AgentState {
        also(node, &[], treats)
    }

    pub(crate) fn also(node: &str, also_called: &[&str], treats: bool) -> AgentState {
        AgentState::Reachable {
            node: node.to_owned(),
            also_called: also_called.iter().map(|it| (*it).to_owned()).collect(),
            treats,
        }
    }

    pub(crate) fn gone() -> AgentState {
        let why = "gone".to_owned();
        AgentState::Unreachable { why }
    }

    fn standing(poll: &AgentPoll, label: &str) -> Option<AgentState> {
        match poll.find(label) {
            Found::One(agent) => Some(agent.state.clone()),
            Found::Many(agents) => panic!("{label}: {agents:?}"),
            Found::None => None,
        }
    }

    fn at(host: &str, named: Option<&str>, state: AgentState) -> Agent {
        let text = format!("x http://{host}:19110 http://{host}:19111");
        let mut address = AgentAddress::try_from(text).unwrap();
        address.node = named.map(str::to_owned);
        Agent::new(address, state)
    }

    #[test]
    fn an_agent_is_found_by_its_addresses() {
        let a = also("node-a", &["host-a.example.com", "192.0.2.1"], false);
        let poll = AgentPoll::of(vec![
            at("10.0.0.1", None, a.clone()),
            at("[2001:db8::1]", None, a.clone()),
            at("10.0.0.2", None, gone()),
            at("127.0.0.1", Some("node-c"), there("node-c", false)),
            at("127.0.0.1", Some("node-d"), there("node-d", false)),
        ]);
        assert_eq!(poll.known(), 4);
        for label in [
            "10.0.0.1:9100",
            "[2001:DB8::1]:9100",
            "192.0.2.1:9100",
            "HOST-A",
        ] {
            assert_eq!(standing(&poll, label), Some(a.clone()), "{label}");
        }
        assert_eq!(standing(&poll, "10.0.0.2:9100"), Some(gone()));
        for label in ["10.0.0.3:9100", "127.0.0.1:9100", "localhost:19110"] {
            assert_eq!(standing(&poll, label), None, "{label}");
        }
    }

    #[test]
    fn a_name_that_two_agents_have_means_neither() {
        let poll = AgentPoll::of(vec![
            agent(None, there("node-1.a.example", false)),
            agent(None, there("node-1.b.example", false)),
            agent(Some("node-3"), there("node-2", false)),
            agent(Some("node-4"), there("node-3", false)),
        ]);
        assert!(matches!(poll.find("node-1"), Found::Many(agents) if agents.len() == 2));
        let b = there("node-1.b.example", false);
        assert_eq!(standing(&poll, "Node-1.b.example:9100"), Some(b));
        assert_eq!(standing(&poll, "node-3"), Some(there("node-3", false)));
    }

    #[test]
    fn an_agent_is_found_by_what_it_says_and_else_by_what_it_is_called() {
        let poll = AgentPoll::of(vec![
            agent(Some("a"), there("node-7", true)),
            agent(Some("node-8"), gone()),
            agent(None, there("node-9", false)),
        ]);
        assert_eq!(standing(&poll, "node-7:19110"), Some(there("node-7", true)));
        assert_eq!(standing(&poll, "node-8"), Some(gone()));
        assert_eq!(standing(&poll, "NODE-9"), Some(there("node-9", false)));
        assert_eq!(standing(&poll, "node-10"), None);
        assert!(poll.nameless().is_none());
        assert_eq!(
            (poll.known(), poll.treating(), poll.unreachable()),
            (3, 1, 1)
        );
    }

    #[test]
    fn one_agent_at_two_addresses_is_one() {
        let twice = vec![agent(None, there("a", true)), agent(None, there("a", true))];
        assert_eq!(AgentPoll::of(twice).known(), 1);
        let two = vec![agent(None, gone()), agent(None, gone())];
        assert_eq!(AgentPoll::of(two).known(), 2);
    }
}
