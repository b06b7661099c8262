//! How all agents are.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use super::{
    agent::{Agent, AgentState, listed},
    agents::AgentSet,
    ask::ask,
    claim::Claim,
};
use crate::{
    http::Client,
    webhook::{Fit, Host, fit},
};

/// Agents that are asked at a time.
const AT_ONCE: usize = 32;

/// All of it, however many do not answer.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// What the agents say at one time.
#[derive(Clone, Debug, Default)]
pub struct AgentPoll {
    /// One of each process.
    agents: Vec<Agent>,
    /// The agents with a name or an address, and those with a name that begins so.
    whole: HashMap<Host, Vec<usize>>,
    first: HashMap<String, Vec<usize>>,
    /// What the first few are called, for messages.
    names: String,
    /// An agent that does not say its node.
    nameless: Option<usize>,
    /// Why there may be agents beside these.
    pub(super) doubt: Option<String>,
    /// Whether nobody could say yet which agents there are.
    pub(super) is_unknown: bool,
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

impl AgentPoll {
    /// Asks all, and claims each for the dispatcher of this number. Those who do not come to answer in
    /// time count as those who do not.
    pub(super) async fn take(client: &Client, set: AgentSet, number: u64) -> Self {
        let until = Instant::now() + TAKEN_WITHIN;
        let asked = set.addresses.into_iter().map(|address| async move {
            let state = timeout_at(until, ask(client, &address, number)).await;
            let state = state.unwrap_or_else(|_| AgentState::Unreachable {
                why: "there are too many agents that do not answer".to_owned(),
            });
            Agent::new(address, state)
        });
        let agents: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        Self {
            doubt: set.doubt,
            is_unknown: set.is_unknown,
            ..Self::of(agents)
        }
    }

    /// An agent that has two addresses is one, and known by both. Two agents that give one name are
    /// two.
    pub(super) fn of(agents: Vec<Agent>) -> Self {
        let mut kept: Vec<Agent> = Vec::new();
        let mut places = HashMap::new();
        for agent in agents {
            let process = agent.process();
            match process.as_ref().and_then(|process| places.get(process)) {
                Some(&first) => {
                    let first: &mut Agent = &mut kept[first];
                    first.merge(agent);
                }
                None => {
                    places.extend(process.map(|process| (process, kept.len())));
                    kept.push(agent);
                }
            }
        }
        let mut poll = Self {
            names: listed(&kept.iter().collect::<Vec<_>>()),
            nameless: kept.iter().position(Agent::is_nameless),
            agents: kept,
            ..Self::default()
        };
        for (index, agent) in poll.agents.iter().enumerate() {
            for host in &agent.known_by {
                if let Some(first) = host.first() {
                    poll.first.entry(first.to_owned()).or_default().push(index);
                }
                poll.whole.entry(host.clone()).or_default().push(index);
            }
        }
        poll
    }

    /// How many agents there are.
    pub fn known(&self) -> usize {
        self.agents.len()
    }

    /// For whom the agents that answer have something begun.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.agents.iter().filter_map(|agent| match &agent.state {
            AgentState::Reachable { claim, .. } => Some(claim),
            AgentState::Unreachable { .. } => None,
        })
    }

    /// The nodes that neither treat nor are unreachable.
    pub(super) fn idle(&self) -> impl Iterator<Item = &str> {
        self.agents.iter().filter_map(|agent| match &agent.state {
            AgentState::Reachable { node, .. } if !agent.counts_as_treating() => Some(&**node),
            AgentState::Reachable { .. } | AgentState::Unreachable { .. } => None,
        })
    }

    /// Those with an active treatment, or that are deciding on one.
    pub fn treating(&self) -> usize {
        let agents = self.agents.iter();
        agents.filter(|agent| agent.treats_or_decides()).count()
    }

    /// Those that do not answer, or take no alerts of this dispatcher.
    pub fn unreachable(&self) -> usize {
        let is_away = |agent: &&Agent| !agent.treats_or_decides() && agent.counts_as_treating();
        self.agents.iter().filter(is_away).count()
    }

    /// The agent of a node, as an alert names it: the one that it fits best.
    pub(super) fn find(&self, label: &str) -> Found<'_> {
        let host = Host::of(label);
        let first = host.first().and_then(|first| self.first.get(first));
        let indices: BTreeSet<_> = self
            .whole
            .get(&host)
            .into_iter()
            .chain(first)
            .flatten()
            .collect();
        let candidates = indices.into_iter().map(|index| {
            let agent = &self.agents[*index];
            (agent, host.fit(&agent.known_by))
        });
        let candidates: Vec<_> = candidates.collect();
        let best = candidates
            .iter()
            .map(|(_, fit)| *fit)
            .max()
            .unwrap_or(Fit::No);
        if best == Fit::No {
            return Found::None;
        }
        let of_best = candidates.into_iter().filter(|(_, fit)| *fit == best);
        let mut of_best: Vec<_> = of_best.map(|(agent, _)| agent).collect();
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
    pub(super) fn names(&self) -> &str {
        &self.names
    }

    /// An agent that does not say its node, if there is one.
    pub(super) fn nameless(&self) -> Option<&Agent> {
        self.nameless.map(|index| &self.agents[index])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{super::AgentAddress, *};

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
            instance: None,
            treats,
            decides: false,
            claim: Claim::Unsupported,
        }
    }

    /// One that says which process it is.
    pub(crate) fn process(node: &str, instance: &str, treats: bool) -> AgentState {
        AgentState::Reachable {
            node: node.to_owned(),
            also_called: Vec::new(),
            instance: Some(instance.to_owned()),
            treats,
            decides: false,
            claim: Claim::Own,
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
    fn two_agents_that_give_one_name_are_two_and_both_count() {
        let poll = AgentPoll::of(vec![
            at("192.0.2.1", None, process("a", "x", false)),
            at("192.0.2.2", None, process("a", "y", true)),
            at("[2001:db8::2]", None, process("a", "y", true)),
        ]);
        assert_eq!((poll.known(), poll.treating()), (2, 1));
        let Found::Many(agents) = poll.find("a") else {
            panic!("{poll:?}");
        };
        let listed = listed(&agents);
        assert!(listed.contains("a at http://192.0.2.1:19110"), "{listed}");
        assert!(listed.contains("a at http://192.0.2.2:19110"), "{listed}");
    }

    /// What it decides on may be another alert: one more there may be one more node.
    #[test]
    fn one_that_decides_counts_and_is_not_yet_treating() {
        let mut state = there("a", false);
        if let AgentState::Reachable { decides, .. } = &mut state {
            *decides = true;
        }
        let poll = AgentPoll::of(vec![agent(None, state)]);
        assert_eq!((poll.treating(), poll.unreachable()), (1, 0));
        assert_eq!(poll.idle().count(), 0);
        assert!(!poll.agents[0].treats());
    }

    #[test]
    fn one_that_began_between_two_readings_treats() {
        for [first, second] in [[false, true], [true, false]] {
            let twice = [first, second].map(|treats| agent(None, process("a", "x", treats)));
            let poll = AgentPoll::of(twice.into());
            assert_eq!((poll.known(), poll.treating()), (1, 1));
        }
    }

    #[test]
    fn one_agent_at_two_addresses_is_one() {
        let twice = vec![agent(None, there("a", true)), agent(None, there("a", true))];
        assert_eq!(AgentPoll::of(twice).known(), 1);
        let two = vec![agent(None, gone()), agent(None, gone())];
        assert_eq!(AgentPoll::of(two).known(), 2);
    }
}
