//! The HTTP server. It only reads: no route changes anything or starts a
//! measurement.
//!
//! - `/`: the verdicts as a page for people
//! - `/metrics`: everything for Prometheus
//! - `/report`: the last report, as JSON
//! - `/healthz`: 200 while the agent ticks, else 503
//! - `/readyz`: 200 once every ailment is attached or has said why not, until then 503
//!
//! Each takes GET and HEAD.

mod health;
mod pages;
mod server;

pub use pages::Pages;
pub use server::Server;
