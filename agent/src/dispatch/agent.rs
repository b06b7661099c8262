//! One agent, and what it is called.

use std::net::IpAddr;

use super::{AgentAddress, claim::Claim};
use crate::webhook::Host;

/// One agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) address: AgentAddress,
    /// All that it is known by: what its report says, what the configuration calls it, and the
    /// addresses at which it is asked.
    pub(super) known_by: Vec<Host>,
    pub(super) state: AgentState,
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
        /// Which process it is; none where the agent is older than that.
        instance: Option<String>,
        /// Whether a treatment is active.
        treats: bool,
        /// Whether alerts are being decided on, so that one may become active.
        decides: bool,
        /// Whether it takes alerts of this dispatcher.
        claim: Claim,
    },
    /// It does not.
    Unreachable {
        /// Why.
        why: String,
    },
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

    /// What it has in common with itself at another address. An agent that is too old to say which
    /// process it is has its name.
    pub(super) fn process(&self) -> Option<(String, Option<String>)> {
        match &self.state {
            AgentState::Reachable { node, instance, .. } => Some((node.clone(), instance.clone())),
            AgentState::Unreachable { .. } => None,
        }
    }

    /// Itself at another address, asked a moment before or after.
    pub(super) fn merge(&mut self, other: Self) {
        self.known_by.extend(other.known_by);
        if let (
            AgentState::Reachable {
                treats,
                decides,
                claim,
                ..
            },
            AgentState::Reachable {
                treats: also,
                decides: also_decides,
                claim: other,
                ..
            },
        ) = (&mut self.state, other.state)
        {
            *treats |= also;
            *decides |= also_decides;
            if *claim == Claim::Own {
                *claim = other;
            }
        }
    }

    pub(super) fn is_nameless(&self) -> bool {
        self.address.node.is_none() && self.node().is_none()
    }

    /// Whether its report has a treatment that is active: one more is no more nodes.
    pub(super) fn treats(&self) -> bool {
        matches!(self.state, AgentState::Reachable { treats: true, .. })
    }

    /// Whether its report has a treatment that is active, or may become so by what it decides on now.
    pub(super) fn treats_or_decides(&self) -> bool {
        let decides = matches!(self.state, AgentState::Reachable { decides: true, .. });
        decides || self.treats()
    }

    /// Whether it treats for all that is known. Where another may have something begun there, that is
    /// not known.
    pub(super) fn counts_as_treating(&self) -> bool {
        match &self.state {
            AgentState::Reachable { claim, .. } => {
                self.treats_or_decides() || matches!(claim, Claim::Refused { .. })
            }
            AgentState::Unreachable { .. } => true,
        }
    }

    /// What its report calls its node.
    pub(super) fn node(&self) -> Option<&str> {
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

/// What agents are called, for a message.
pub(super) fn listed(agents: &[&Agent]) -> String {
    const LISTED: usize = 5;
    let is_unique = |node: &str| agents.iter().filter(|it| it.node() == Some(node)).count() == 1;
    let name = |agent: &&Agent| match agent.node() {
        Some(node) if agents.len() > LISTED || is_unique(node) => node.to_owned(),
        Some(node) => format!("{node} at {}", agent.address.report),
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
