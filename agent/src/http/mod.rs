//! The HTTP server, and the pages. They only read: none changes anything or starts a
//! measurement. What may change something, the webhook, has a server of its own behind a
//! [`Gate`].
//!
//! - `/`: the verdicts as a page for people
//! - `/metrics`: everything for Prometheus
//! - `/report`: the last report, as JSON
//! - `/healthz`: 200 while the agent ticks, else 503
//! - `/readyz`: 200 once every ailment is attached or has said why not, until then 503
//!
//! Each takes GET and HEAD.

mod answer;
pub(crate) mod body;
mod client;
mod files;
mod gate;
mod health;
mod pages;
mod rate;
mod renewed;
mod server;
mod tls;
mod token;
mod url;
mod web_config;

pub use answer::{Answer, json, not_allowed, text};
pub use client::{Client, ClientConfig, Reply};
pub use gate::{Gate, GateConfig};
pub use pages::{Pages, metrics_page};
pub use server::{Server, Service};
pub use tls::{Tls, TlsClient};
pub use token::Token;
pub use url::Url;
