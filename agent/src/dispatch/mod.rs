//! `nodemedic dispatch`: takes Alertmanager's webhook for many nodes, and gives each alert
//! to the agent of the node that it names.
//!
//! It stores nothing: which agents there are, it looks up; which nodes are under treatment,
//! the agents say. Each payload is decided on alone:
//!
//! 1. the poll claims every agent, so that no other dispatcher has anything begun there, and asks for
//!    its report: which node it is, and whether something is active there or being decided on;
//! 2. the limit is set by that: so many more nodes may be treated, where an agent that does not
//!    answer, or has not answered yet to what it was sent, counts as one that treats;
//! 3. each agent gets the alerts of its node, at most as many agents at a time as the
//!    limit allows to begin something. Alerts that are resolved always go through.

mod address;
mod agent;
mod agents;
mod ask;
mod batch;
mod claim;
mod counts;
mod limit;
mod pages;
mod poll;
mod reserved;
mod router;
mod settings;

pub use address::AgentAddress;
pub use agents::Agents;
pub use counts::{METRICS, NodeGauges};
pub use pages::{Health, Pages};
pub use poll::AgentPoll;
pub use router::Router;
pub use settings::Dispatch;
