//! HTTP as all parts of the agent speak it: servers, connections, TLS, clients, and who may come
//! in ([`Gate`]).

mod answer;
mod body;
mod client;
mod files;
mod gate;
mod misconfigured;
mod peer;
mod rate;
mod renewed;
mod server;
mod tls;
mod token;
mod url;
mod web_config;

pub use answer::{Answer, HTML, answer, failed, json, not_allowed, text};
pub use body::Received;
pub use client::{Client, ClientConfig, Reply};

pub use gate::{Gate, GateConfig};
pub use misconfigured::Misconfigured;
pub use server::{Limits, Refusals, Server, Service};
pub use tls::{Tls, TlsClient};
pub use token::Token;
pub use url::Url;
#[cfg(any(test, fuzzing))]
pub use web_config::FUZZ;
