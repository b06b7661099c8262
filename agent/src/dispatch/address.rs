//! Where an agent is.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    http::Url,
    keys::{Allowed, Value},
};

/// An agent: its node's name, if that is known, and where its pages and its webhook are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentAddress {
    /// The node, where the configuration names it; its report does in any case.
    pub node: Option<String>,
    /// Of the pages.
    pub report: Url,
    /// Of the webhook.
    pub webhook: Url,
}

impl AgentAddress {
    /// One of the addresses of a service.
    pub fn at(address: SocketAddr, webhook_port: u16, is_https: bool) -> Self {
        let host = address.ip().to_string();
        Self {
            node: None,
            report: Url {
                is_https: false,
                host: host.clone(),
                port: address.port(),
            },
            webhook: Url {
                is_https,
                host,
                port: webhook_port,
            },
        }
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        self.node.clone().unwrap_or_else(|| self.report.to_string())
    }
}

/// Each is a text.
impl Value for Vec<AgentAddress> {
    const ALLOWED: Option<Allowed> = Some(Allowed::Texts);
}

impl TryFrom<String> for AgentAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<_> = text.split_whitespace().collect();
        let [node, report, webhook] = words[..] else {
            return Err(format!("{text:?} is not \"NODE REPORT WEBHOOK\""));
        };
        let report = Url::parse(report)?;
        if report.is_https {
            return Err(format!("{report}: the pages of an agent speak HTTP alone"));
        }
        Ok(Self {
            node: Some(node.to_owned()),
            report,
            webhook: Url::parse(webhook)?,
        })
    }
}

impl From<AgentAddress> for String {
    fn from(address: AgentAddress) -> Self {
        let AgentAddress {
            node,
            report,
            webhook,
        } = address;
        format!("{} {report} {webhook}", node.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_written_as_it_is_read() {
        for text in [
            "node-7 http://192.0.2.1:19110 https://192.0.2.1:19111",
            "node-7 http://[2001:db8::1]:19110 http://node-7.example:19111",
        ] {
            let address = AgentAddress::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(address), text);
        }
    }

    #[test]
    fn what_is_no_agent_is_told_what_one_is() {
        for (text, why) in [
            ("", "NODE REPORT WEBHOOK"),
            ("node-7 http://a:1", "NODE REPORT WEBHOOK"),
            ("a http://a:1 http://a:2 http://a:3", "NODE REPORT WEBHOOK"),
            ("a a:1 http://a:2", "http://HOST:PORT"),
            ("a http://a http://a:2", "http://HOST:PORT"),
            ("a http://a:1 ftp://a:2", "http://HOST:PORT"),
            ("a http://a:1 http://a:2/alertmanager", "http://HOST:PORT"),
            ("a http://a:1 http://u:p@a:2", "http://HOST:PORT"),
            ("a http://a:1 http://a:99999", "http://HOST:PORT"),
            ("a https://a:1 http://a:2", "HTTP alone"),
        ] {
            let error = AgentAddress::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_of_a_service_has_two_ports() {
        let address = AgentAddress::at("[2001:db8::1]:19110".parse().unwrap(), 19_111, true);
        assert_eq!(address.report.to_string(), "http://[2001:db8::1]:19110");
        assert_eq!(address.webhook.to_string(), "https://[2001:db8::1]:19111");
        assert_eq!(address.name(), "http://[2001:db8::1]:19110");
    }
}
