//! `[webhook]`

use std::{net::SocketAddr, path::PathBuf};

use super::keys;
use crate::{
    config::{loopback, settings, shared_help},
    http::GateConfig,
};

settings! {
    /// How Alertmanager asks for treatments: docs/operations.md, Treatments by alert.
    pub struct Webhook as "webhook" {
        /// Whether Alertmanager can ask for treatments, by POST /alertmanager.
        enabled: bool = false;
        /// Where the webhook listens. Beyond the loopback it takes token_file, or web_config with
        /// client_auth_type RequireAndVerifyClientCert.
        listen: SocketAddr = loopback(19_111);
        #[doc = shared_help!(web_config)]
        web_config: PathBuf = PathBuf::new();
        #[doc = shared_help!(token_file)]
        token_file: PathBuf = PathBuf::new();
        #[doc = shared_help!(max_body_bytes)]
        max_body_bytes: usize = 1 << 20, in keys::BODY;
        #[doc = shared_help!(per_minute)]
        per_minute: u32 = 120, in keys::REQUESTS;
        /// Whether an alert that is resolved undoes the treatment that it has begun. Otherwise that
        /// ends when its time is over.
        undo_resolved: bool = true;
        #[doc = shared_help!(node_labels)]
        node_labels: Vec<String> = keys::node_labels();
        /// What these labels call this node, each with or without a port. Empty: what reports call
        /// it.
        node_names: Vec<String> = Vec::new();
        /// Whether an alert that has none of these labels is for this node.
        accept_unnamed: bool = false;
    }
}

impl Webhook {
    /// Who may come in.
    pub fn gate(&self) -> GateConfig {
        GateConfig {
            table: "webhook",
            listen: self.listen,
            web_config: self.web_config.clone(),
            token_file: self.token_file.clone(),
            max_body_bytes: self.max_body_bytes,
            per_minute: self.per_minute,
        }
    }
}
