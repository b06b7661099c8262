//! `[webhook]`

use std::{net::SocketAddr, path::PathBuf};

use super::keys;
use crate::{
    http::GateConfig,
    keys::{loopback, settings, shared_help},
};

settings! {
    /// How Alertmanager requests treatments: docs/operations.md, Treatments by alert.
    pub struct Webhook as "webhook" {
        /// Accept alerts from Alertmanager at POST /alertmanager.
        enabled: bool = false;
        /// Set the address of the webhook; the flag also enables the webhook. Beyond the loopback,
        /// set token_file too, or web_config with client_auth_type `RequireAndVerifyClientCert`.
        listen: SocketAddr = loopback(19_111), flag "--webhook ADDR:PORT";
        #[doc = shared_help!(web_config)]
        web_config: PathBuf = PathBuf::new();
        #[doc = shared_help!(token_file)]
        token_file: PathBuf = PathBuf::new();
        #[doc = shared_help!(max_body_bytes)]
        max_body_bytes: usize = 1 << 20, in keys::BODY;
        #[doc = shared_help!(max_requests_per_minute)]
        max_requests_per_minute: u32 = 120, in keys::REQUESTS;
        /// Undo the treatment of an alert when the alert is resolved. `false`: the treatment lasts
        /// until its time is over.
        undo_resolved: bool = true;
        #[doc = shared_help!(node_labels)]
        node_labels: Vec<String> = keys::node_labels();
        /// List the values of these labels that mean this node; ports and capital letters do not
        /// matter. Empty: the node's name in reports, its host name and its addresses.
        node_names: Vec<String> = Vec::new();
        /// Accept alerts that have none of these labels.
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
            max_requests_per_minute: self.max_requests_per_minute,
        }
    }
}
