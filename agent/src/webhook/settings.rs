//! `[webhook]`

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::keys;
use crate::{
    config::{Allowed, Key},
    http::GateConfig,
};

/// `[webhook]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// Whether there is one.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The file that says how to speak TLS; empty for not at all.
    pub web_config: PathBuf,
    /// The file of the bearer token; empty for none.
    pub token_file: PathBuf,
    /// The largest payload, bytes.
    pub max_body_bytes: usize,
    /// Requests a minute.
    pub per_minute: u32,
    /// Whether a resolved alert undoes what it has begun.
    pub undo_resolved: bool,
    /// The labels that may name a node; the first that an alert has counts.
    pub node_labels: Vec<String>,
    /// What they call this node; empty for the node's name.
    pub node_names: Vec<String>,
    /// Whether an alert that names no node is for this one.
    pub accept_unnamed: bool,
}

impl Webhook {
    /// What may stand in `[webhook]`.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "enabled",
            allowed: Allowed::Switch,
            help: "Whether Alertmanager can ask for treatments, by POST /alertmanager.",
        },
        Key {
            name: "listen",
            allowed: Allowed::Address,
            help: "Where the webhook listens. Beyond the loopback it takes token_file, or \
                   web_config with client_auth_type RequireAndVerifyClientCert.",
        },
        keys::WEB_CONFIG,
        keys::TOKEN_FILE,
        keys::MAX_BODY,
        keys::PER_MINUTE,
        Key {
            name: "undo_resolved",
            allowed: Allowed::Switch,
            help: "Whether an alert that is resolved undoes the treatment that it has begun. \
                   Otherwise that ends when its time is over.",
        },
        keys::NODE_LABELS,
        Key {
            name: "node_names",
            allowed: Allowed::Texts,
            help: "What these labels call this node, each with or without a port. Empty: what \
                   reports call it.",
        },
        Key {
            name: "accept_unnamed",
            allowed: Allowed::Switch,
            help: "Whether an alert that has none of these labels is for this node.",
        },
    ];

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

impl Default for Webhook {
    fn default() -> Self {
        Self {
            enabled: false,
            listen: (Ipv4Addr::LOCALHOST, 19_111).into(),
            web_config: PathBuf::new(),
            token_file: PathBuf::new(),
            max_body_bytes: 1 << 20,
            per_minute: 120,
            undo_resolved: true,
            node_labels: keys::node_labels(),
            node_names: Vec::new(),
            accept_unnamed: false,
        }
    }
}
