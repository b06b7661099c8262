//! Where an agent is.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// An agent: its node's name, if that is known, and where its pages and its webhook are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    /// The node, where the configuration names it; its report does in any case.
    pub node: Option<String>,
    /// Of the pages.
    pub report: Url,
    /// Of the webhook.
    pub webhook: Url,
}

/// The origin of a server: `http` or `https`, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is spoken there.
    pub is_https: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Place {
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

impl TryFrom<String> for Place {
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

impl From<Place> for String {
    fn from(place: Place) -> Self {
        let Place {
            node,
            report,
            webhook,
        } = place;
        format!("{} {report} {webhook}", node.unwrap_or_default())
    }
}

impl Url {
    /// Reads `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    ///
    /// What it should be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not http://HOST:PORT or https://HOST:PORT");
        let uri: hyper::Uri = text.parse().map_err(|_| wrong())?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let bare = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
        let port = authority.port_u16().filter(|_| bare).ok_or_else(wrong)?;
        let host = authority.host();
        let unbracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        Ok(Self {
            is_https,
            host: unbracketed.unwrap_or(host).to_owned(),
            port,
        })
    }

    /// As a request names it.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_written_as_it_is_read() {
        for text in [
            "ward-7 http://192.0.2.1:19110 https://192.0.2.1:19111",
            "ward-7 http://[2001:db8::1]:19110 http://ward-7.example:19111",
        ] {
            let place = Place::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(place), text);
        }
    }

    #[test]
    fn what_is_no_agent_is_told_what_one_is() {
        for (text, why) in [
            ("", "NODE REPORT WEBHOOK"),
            ("ward-7 http://a:1", "NODE REPORT WEBHOOK"),
            ("a http://a:1 http://a:2 http://a:3", "NODE REPORT WEBHOOK"),
            ("a a:1 http://a:2", "http://HOST:PORT"),
            ("a http://a http://a:2", "http://HOST:PORT"),
            ("a http://a:1 ftp://a:2", "http://HOST:PORT"),
            ("a http://a:1 http://a:2/alertmanager", "http://HOST:PORT"),
            ("a http://a:1 http://u:p@a:2", "http://HOST:PORT"),
            ("a http://a:1 http://a:99999", "http://HOST:PORT"),
            ("a https://a:1 http://a:2", "HTTP alone"),
        ] {
            let error = Place::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_address_of_a_service_has_two_ports() {
        let place = Place::at("[2001:db8::1]:19110".parse().unwrap(), 19_111, true);
        assert_eq!(place.report.to_string(), "http://[2001:db8::1]:19110");
        assert_eq!(place.webhook.to_string(), "https://[2001:db8::1]:19111");
        assert_eq!(place.name(), "http://[2001:db8::1]:19110");
    }
}
