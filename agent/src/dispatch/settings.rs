//! `[dispatch]`

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::Place;
use crate::{
    config::{Allowed, HOUR, SECOND, count, loopback, settings, shared_help, time},
    http::{ClientConfig, GateConfig},
    webhook::keys,
};

const PORT: Allowed = count(1..=u16::MAX as u64);

settings! {
    /// How `nodemedic dispatch` gives alerts to agents, and how many nodes may be treated at once:
    /// docs/operations.md, Dispatch.
    pub struct Dispatch as "dispatch" {
        /// Where Alertmanager's webhook is taken, by POST /alertmanager. Beyond the loopback it
        /// takes token_file, or web_config with client_auth_type RequireAndVerifyClientCert.
        listen: SocketAddr = loopback(19_112);
        #[doc = shared_help!(web_config)]
        web_config: PathBuf = PathBuf::new();
        #[doc = shared_help!(token_file)]
        token_file: PathBuf = PathBuf::new();
        #[doc = shared_help!(max_body_bytes)]
        max_body_bytes: usize = 4 << 20, in keys::BODY;
        #[doc = shared_help!(per_minute)]
        per_minute: u32 = 120, in keys::REQUESTS;
        /// Where /metrics and /healthz are, for whoever asks.
        pages: SocketAddr = loopback(19_113);
        #[doc = shared_help!(node_labels)]
        node_labels: Vec<String> = keys::node_labels();
        /// Agents, each as "NODE REPORT WEBHOOK": the name of the node, the URL of its pages, and
        /// that of its webhook, such as "node-1 http://192.0.2.1:19110 https://192.0.2.1:19111".
        agents: Vec<Place> = Vec::new();
        /// A name in DNS, as that of a headless service, each of whose addresses is an agent. Which
        /// node that is, its report says. Empty: agents alone.
        service: String = String::new();
        /// The port of the pages of the agents of service. They are asked by HTTP.
        report_port: u16 = 19_110, in PORT;
        /// The port of the webhooks of the agents of service. They are asked by HTTPS where
        /// agent_ca_file is set, else by HTTP.
        webhook_port: u16 = 19_111, in PORT;
        /// How long the addresses of service are believed before it is looked up again. So often
        /// the agents are asked how they are, too, when no alert comes.
        resolve_every: Duration = Duration::from_secs(10), in time(SECOND..=HOUR);
        /// A file with the bearer token that the agents' webhooks want, readable by its owner
        /// alone. It is read again when it changes. Empty: no token.
        agent_token_file: PathBuf = PathBuf::new();
        /// The certificates of those who vouch for the agents' webhooks. Empty: no TLS.
        agent_ca_file: PathBuf = PathBuf::new();
        /// What the certificate of every agent's webhook calls it. Empty: the host of its URL.
        agent_server_name: String = String::new();
        /// The certificate that is shown to webhooks which ask for one. Empty: none.
        agent_cert_file: PathBuf = PathBuf::new();
        /// The key of that certificate, readable by its owner alone.
        agent_key_file: PathBuf = PathBuf::new();
        /// How long one answer of an agent may take. One that takes longer counts as unreachable.
        agent_timeout: Duration = Duration::from_secs(5),
            in time(Duration::from_millis(100)..=Duration::from_secs(10));
        /// The brake: at most so many nodes are under treatment at once. A node whose agent does
        /// not answer counts as one.
        max_nodes: usize = 3, in count(1..=10_000);
        /// The brake: at most so many of a hundred known nodes, yet always one.
        max_percent: usize = 10, in count(1..=100);
    }
}

impl Dispatch {
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
