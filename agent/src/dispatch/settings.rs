//! `[dispatch]`

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::AgentAddress;
use crate::{
    http::{ClientConfig, GateConfig},
    keys::{Allowed, HOUR, SECOND, count, loopback, settings, shared_help, time},
    webhook::keys,
};

const PORT: Allowed = count(1..=u16::MAX as u64);

settings! {
    /// How `nodemedic dispatch` routes alerts to agents, and how many nodes may be under treatment
    /// at once: docs/operations.md, Dispatch.
    pub struct Dispatch as "dispatch" {
        /// Set the address of the webhook for Alertmanager, POST /alertmanager. Beyond the
        /// loopback, set token_file too, or web_config with client_auth_type
        /// `RequireAndVerifyClientCert`.
        listen: SocketAddr = loopback(19_112), flag "--listen ADDR:PORT";
        #[doc = shared_help!(web_config)]
        web_config: PathBuf = PathBuf::new();
        #[doc = shared_help!(token_file)]
        token_file: PathBuf = PathBuf::new();
        #[doc = shared_help!(max_body_bytes)]
        max_body_bytes: usize = 4 << 20, in keys::BODY;
        #[doc = shared_help!(max_requests_per_minute)]
        max_requests_per_minute: u32 = 120, in keys::REQUESTS;
        /// Set the address of /metrics, /healthz and /readyz. They answer without authentication.
        http_listen: SocketAddr = loopback(19_113), flag "--http-listen ADDR:PORT";
        #[doc = shared_help!(health_listen)]
        health_listen: Option<SocketAddr> = Some(loopback(19_115)),
            flag "--health-listen ADDR:PORT";
        #[doc = shared_help!(node_labels)]
        node_labels: Vec<String> = keys::node_labels();
        /// List agents, each as "NODE REPORT WEBHOOK": the name of the node, the URL of the agent's
        /// pages, and the URL of its webhook, such as "node-1 http://192.0.2.1:19110
        /// https://192.0.2.1:19111".
        agents: Vec<AgentAddress> = Vec::new();
        /// Find agents by this DNS name: every address of the name is an agent, as with a headless
        /// service. Each agent's report gives its node's name. Empty: only the agents in the list.
        service: String = String::new();
        /// Set the port of the pages of agents found by service. The dispatcher speaks HTTP to
        /// them.
        report_port: u16 = 19_110, in PORT;
        /// Set the port of the webhooks of agents found by service. The dispatcher speaks HTTPS to
        /// them where agent_ca_file is set, else HTTP.
        webhook_port: u16 = 19_111, in PORT;
        /// Set the time between two lookups of service. The dispatcher also polls the agents at
        /// this interval.
        resolve_every: Duration = Duration::from_secs(10), in time(SECOND..=HOUR);
        /// Send the bearer token in this file to the agents' webhooks. No one but the owner may
        /// have access to the file. The dispatcher reads the file again when it changes. Empty: no
        /// token.
        agent_token_file: PathBuf = PathBuf::new();
        /// Verify the certificates of the agents' webhooks with the CA bundle in this file. Empty:
        /// no TLS.
        agent_ca_file: PathBuf = PathBuf::new();
        /// Expect this name in the certificate of every agent's webhook. Empty: the host of the
        /// agent's URL.
        agent_server_name: String = String::new();
        /// Present the client certificate in this file to webhooks that request one. Empty: none.
        agent_cert_file: PathBuf = PathBuf::new();
        /// Set the file with the private key of agent_cert_file. No one but the owner may have
        /// access to the file.
        agent_key_file: PathBuf = PathBuf::new();
        /// Limit the time for one answer of an agent. A slower agent counts as unreachable.
        agent_timeout: Duration = Duration::from_secs(5),
            in time(Duration::from_millis(100)..=Duration::from_secs(10));
        /// Limit the nodes under treatment at once. A node with an unreachable agent counts as
        /// under treatment.
        max_nodes: usize = 3, in count(1..=10_000);
        /// Limit the percentage of known nodes under treatment at once. One node is always allowed.
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
            max_requests_per_minute: self.max_requests_per_minute,
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
