//! `nodemedic dispatch`: takes Alertmanager's webhook for many nodes, and gives each alert
//! to the agent of the node that it names.
//!
//! It keeps nothing: which agents there are, it looks up; which nodes are under treatment,
//! the agents say. Each payload is decided on alone:
//!
//! 1. the poll asks every agent for its report: which node it is, and whether something
//!    is active there;
//! 2. the limit is set by that: so many more nodes may be treated, where an agent that
//!    does not answer counts as one that treats;
//! 3. each agent gets the alerts of its node, at most as many agents at a time as the
//!    limit allows to begin something. Alerts that are resolved always go through.

mod address;
mod agents;
mod batch;
mod counts;
mod limit;
mod pages;
mod poll;
mod router;
mod settings;

pub use address::AgentAddress;
pub use agents::Agents;
pub use counts::{METRICS, NodeGauges};
pub use pages::{Health, Pages};
pub use poll::AgentPoll;
pub use router::Router;
pub use settings::Dispatch;
