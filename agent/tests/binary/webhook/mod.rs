//! The webhook, as Alertmanager and those who are not Alertmanager meet it.

mod bed;
mod certificates;
mod configuration;
mod payloads;
mod slow;
mod tls;
mod token;
