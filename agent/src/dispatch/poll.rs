//! How all agents are.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, stream};
use hyper::StatusCode;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::AgentAddress;
use crate::{http::Client, model::RunState, webhook::is_called};

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
    pub(super) state: AgentState,
}

/// How an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AgentState {
    /// It answers.
    Reachable {
        /// What its report calls the node.
        node: String,
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
            Agent { address, state }
        });
        let agents: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        Self::of(agents)
    }

    /// An agent that has two addresses is one.
    pub(super) fn of(agents: Vec<Agent>) -> Self {
        let mut seen = BTreeSet::new();
        let is_new = |agent: &Agent| match &agent.state {
            AgentState::Reachable { node, .. } => seen.insert(node.clone()),
            AgentState::Unreachable { .. } => true,
        };
        Self {
            agents: agents.into_iter().filter(is_new).collect(),
        }
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

    /// The agent of a node, as an alert names it; by what it says, else by what the
    /// configuration calls it.
    pub(super) fn find(&self, label: &str) -> Option<&Agent> {
        let by_itself = self.agents.iter().find(|agent| match &agent.state {
            AgentState::Reachable { node, .. } => is_called(label, node),
            AgentState::Unreachable { .. } => false,
        });
        by_itself.or_else(|| {
            let named = |agent: &&Agent| {
                let node = agent.address.node.as_deref();
                node.is_some_and(|node| is_called(label, node))
            };
            self.agents.iter().find(named)
        })
    }

    /// An agent of which nobody knows what node it is.
    pub(super) fn nameless(&self) -> Option<&Agent> {
        let nameless = |agent: &&Agent| {
            agent.address.node.is_none() && matches!(agent.state, AgentState::Unreachable { .. })
        };
        self.agents.iter().find(nameless)
    }
}

async fn ask(client: &Client, address: &AgentAddress) -> AgentState {
    match report(client, address).await {
        Ok(Report { node, treatments }) => {
            let active = |it: &Run| {
                matches!(
                    it.state,
                    RunState::Intended | RunState::Applied | RunState::Confirmed
                )
            };
            let treats = treatments.iter().any(active);
            if address.node.as_ref().is_some_and(|named| *named != node) {
                warn!(
                    named = address.node,
                    node, "an agent calls itself otherwise"
                );
            }
            AgentState::Reachable { node, treats }
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
        Agent { address, state }
    }

    pub(crate) fn there(node: &str, treats: bool) -> AgentState {
        AgentState::Reachable {
            node: node.to_owned(),
            treats,
        }
    }

    pub(crate) fn gone() -> AgentState {
        let why = "gone".to_owned();
        AgentState::Unreachable { why }
    }

    #[test]
    fn an_agent_is_found_by_what_it_says_and_else_by_what_it_is_called() {
        let poll = AgentPoll::of(vec![
            agent(Some("a"), there("node-7", true)),
            agent(Some("node-8"), gone()),
            agent(None, there("node-9", false)),
        ]);
        let standing = |label| poll.find(label).map(|agent| agent.state.clone());
        assert_eq!(standing("node-7:19110"), Some(there("node-7", true)));
        assert_eq!(standing("node-8"), Some(gone()));
        assert_eq!(standing("node-9"), Some(there("node-9", false)));
        assert_eq!(standing("node-10"), None);
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
