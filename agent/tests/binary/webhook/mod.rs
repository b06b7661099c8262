//! The webhook, as Alertmanager and those who are not Alertmanager meet it.

pub(crate) mod bed;
pub(crate) mod certificates;
mod configuration;
mod payloads;
mod slow;
mod tls;
mod token;
