//! Alertmanager's webhook: an alert selects among the treatments that the configuration
//! of this node allows to alerts. It never carries a key, a value or a time.
//!
//! `POST /alertmanager` takes a payload of version 4, or Grafana's of version 1, as a whole or not
//! at all. Each alert is decided by itself:
//!
//! - its label `ailment` says against what, `kind` against which finding of it, and
//!   `treatment` with what; only the first is needed;
//! - whose it is, one of its labels says ([`Names`]);
//! - who it is, its fingerprint and its times say ([`crate::model::Trigger`]): what it has begun is
//!   begun once, and undone when it is resolved.
//!
//! The answer is 200 with what was decided of each alert, and 503 where Alertmanager is to
//! send all of it again: what was done already is then a duplicate.
//!
//! Payloads of [`nodemedic dispatch`](crate::dispatch) carry its number ([`Claims`]).

mod claim;
mod counts;
mod decision;
mod handler;
mod intake;
pub(crate) mod keys;
mod listener;
mod names;
mod payload;
mod settings;

pub use claim::{CLAIMED_FOR, Claimed, Claims, DISPATCHER};
pub use counts::{Counted, Counts, METRICS, OF_WEBHOOK};
pub use decision::{AlertOutcome, Decision, tell_all};
pub use handler::{AlertHandler, MOST_ALERTS};
pub use intake::{Intake, PATH, Receipt, Receiver};
pub use listener::Listener;
#[cfg(any(test, fuzzing))]
pub use names::FUZZ as FUZZ_NAMES;
pub use names::{AlertTarget, Fit, Host, Names, NodeLabel, fit, node};
#[cfg(any(test, fuzzing))]
pub use payload::FUZZ as FUZZ_ALERTS;
pub use payload::{Alert, Payload, Status};
pub use settings::Webhook;

#[cfg(test)]
mod tests;
