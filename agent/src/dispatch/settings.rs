//! `[dispatch]`

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::AgentAddress;
use crate::{
    config::{Allowed, Key},
    http::{ClientConfig, GateConfig},
    webhook::keys,
};

const SECOND: Duration = Duration::from_secs(1);

/// `[dispatch]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// Where alerts come in.
    pub listen: SocketAddr,
    /// The file that says how to speak TLS there; empty for not at all.
    pub web_config: PathBuf,
    /// The file of the bearer token; empty for none.
    pub token_file: PathBuf,
    /// The largest payload, bytes.
    pub max_body_bytes: usize,
    /// Requests a minute.
    pub per_minute: u32,
    /// Where /metrics and /healthz are.
    pub pages: SocketAddr,
    /// The labels that may name a node; the first that an alert has counts.
    pub node_labels: Vec<String>,
    /// Agents that are known by name.
    pub agents: Vec<AgentAddress>,
    /// A name whose addresses are all agents; empty for none.
    pub service: String,
    /// Where those have their reports.
    pub report_port: u16,
    /// Where those have their webhooks.
    pub webhook_port: u16,
    /// How long what the name means is believed.
    #[serde(with = "humantime_serde")]
    pub resolve_every: Duration,
    /// The file of the token for the agents' webhooks; empty for none.
    pub agent_token_file: PathBuf,
    /// Who vouches for the agents' webhooks; empty for no TLS to those of `service`.
    pub agent_ca_file: PathBuf,
    /// What the agents' certificates call them; empty for the host of their URL.
    pub agent_server_name: String,
    /// The certificate for agents that ask for one; empty for none.
    pub agent_cert_file: PathBuf,
    /// Its key.
    pub agent_key_file: PathBuf,
    /// How long an agent may take.
    #[serde(with = "humantime_serde")]
    pub agent_timeout: Duration,
    /// At most so many nodes are under treatment at once.
    pub max_nodes: usize,
    /// And at most so many in a hundred.
    pub max_percent: usize,
}

impl Dispatch {
    /// What may stand in `[dispatch]`.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "listen",
            allowed: Allowed::Address,
            help: "Where Alertmanager's webhook is taken, by POST /alertmanager. Beyond the \
                   loopback it takes token_file, or web_config with client_auth_type \
                   RequireAndVerifyClientCert.",
        },
        keys::WEB_CONFIG,
        keys::TOKEN_FILE,
        keys::MAX_BODY,
        keys::PER_MINUTE,
        Key {
            name: "pages",
            allowed: Allowed::Address,
            help: "Where /metrics and /healthz are, for whoever asks.",
        },
        keys::NODE_LABELS,
        Key {
            name: "agents",
            allowed: Allowed::Texts,
            help: "Agents, each as \"NODE REPORT WEBHOOK\": the name of the node, the URL of its \
                   pages, and that of its webhook, such as \"node-1 http://192.0.2.1:19110 \
                   https://192.0.2.1:19111\".",
        },
        Key {
            name: "service",
            allowed: Allowed::Text,
            help: "A name in DNS, as that of a headless service, each of whose addresses is an \
                   agent. Which node that is, its report says. Empty: agents alone.",
        },
        Key {
            name: "report_port",
            allowed: PORT,
            help: "The port of the pages of the agents of service. They are asked by HTTP.",
        },
        Key {
            name: "webhook_port",
            allowed: PORT,
            help: "The port of the webhooks of the agents of service. They are asked by HTTPS \
                   where agent_ca_file is set, else by HTTP.",
        },
        Key {
            name: "resolve_every",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(3_600),
            },
            help: "How long the addresses of service are believed before it is looked up again. \
                   So often the agents are asked how they are, too, when no alert comes.",
        },
        Key {
            name: "agent_token_file",
            allowed: Allowed::Text,
            help: "A file with the bearer token that the agents' webhooks want, readable by its \
                   owner alone. It is read again when it changes. Empty: no token.",
        },
        Key {
            name: "agent_ca_file",
            allowed: Allowed::Text,
            help: "The certificates of those who vouch for the agents' webhooks. Empty: no TLS.",
        },
        Key {
            name: "agent_server_name",
            allowed: Allowed::Text,
            help: "What the certificate of every agent's webhook calls it. Empty: the host of \
                   its URL.",
        },
        Key {
            name: "agent_cert_file",
            allowed: Allowed::Text,
            help: "The certificate that is shown to webhooks which ask for one. Empty: none.",
        },
        Key {
            name: "agent_key_file",
            allowed: Allowed::Text,
            help: "The key of that certificate, readable by its owner alone.",
        },
        Key {
            name: "agent_timeout",
            allowed: Allowed::Time {
                min: Duration::from_millis(100),
                max: SECOND.saturating_mul(10),
            },
            help: "How long one answer of an agent may take. One that takes longer counts as \
                   unreachable.",
        },
        Key {
            name: "max_nodes",
            allowed: Allowed::Count {
                min: 1,
                max: 10_000,
            },
            help: "The limit: at most so many nodes are under treatment at once. A node whose \
                   agent does not answer counts as one.",
        },
        Key {
            name: "max_percent",
            allowed: Allowed::Count { min: 1, max: 100 },
            help: "The limit: at most so many of a hundred known nodes, yet always one.",
        },
    ];

    /// Who may come in.
    pub fn gate(&self) -> GateConfig {
        GateConfig {
            table: "dispatch",
            listen: self.listen,
            web_config: self.web_config.clone(),
            token_file: self.token_file.clone(),
            max_body_bytes: self.max_body_bytes,
            per_minute: self.per_minute,
        }
    }

    /// How agents are asked.
    pub fn client(&self) -> ClientConfig {
        /// A report of a node with hundreds of pods has some 200 KiB.
        const LARGEST_REPORT: usize = 16 << 20;
        ClientConfig {
            table: "dispatch",
            whom: "agent",
            token_file: self.agent_token_file.clone(),
            ca_file: self.agent_ca_file.clone(),
            server_name: self.agent_server_name.clone(),
            cert_file: self.agent_cert_file.clone(),
            key_file: self.agent_key_file.clone(),
            is_https: self.agents.iter().any(|it| it.webhook.is_https),
            within: self.agent_timeout,
            largest: LARGEST_REPORT,
        }
    }
}

const PORT: Allowed = Allowed::Count {
    min: 1,
    max: u16::MAX as u64,
};

impl Default for Dispatch {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 19_112).into(),
            web_config: PathBuf::new(),
            token_file: PathBuf::new(),
            max_body_bytes: 4 << 20,
            per_minute: 120,
            pages: (Ipv4Addr::LOCALHOST, 19_113).into(),
            node_labels: keys::node_labels(),
            agents: Vec::new(),
            service: String::new(),
            report_port: 19_110,
            webhook_port: 19_111,
            resolve_every: SECOND * 10,
            agent_token_file: PathBuf::new(),
            agent_ca_file: PathBuf::new(),
            agent_server_name: String::new(),
            agent_cert_file: PathBuf::new(),
            agent_key_file: PathBuf::new(),
            agent_timeout: SECOND * 5,
            max_nodes: 3,
            max_percent: 10,
        }
    }
}
