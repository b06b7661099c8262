//! The webhook, as Alertmanager and those who are not Alertmanager meet it.

pub(crate) mod certificates;
mod configuration;
mod payloads;
pub(crate) mod setup;
mod slow;
mod tls;
mod token;
