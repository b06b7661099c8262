//! Against DNS rebinding: a page on the internet may give its own name the address of this node,
//! and have a browser read from here what only the browser can reach.

use std::net::IpAddr;

use hyper::{Request, StatusCode, header::HOST, http::uri::Authority};

use crate::{
    http::{Answer, text},
    identity::Identity,
};

/// The names by which the node may be asked.
#[derive(Clone, Debug)]
pub struct Hosts {
    identity: Identity,
    /// Those of the configuration.
    more: Vec<String>,
}

impl Hosts {
    /// The node's own names, and these.
    pub fn new(identity: Identity, more: Vec<String>) -> Self {
        Self { identity, more }
    }

    /// The answer to a request by a name that may be anybody's.
    pub(super) fn refuse<B>(&self, request: &Request<B>) -> Option<Answer> {
        // A browser always sends one.
        let host = request.headers().get(HOST)?;
        let host = host
            .to_str()
            .ok()
            .and_then(|it| it.parse::<Authority>().ok());
        let host = host.map(|it| it.host().trim_end_matches('.').to_ascii_lowercase());
        if host.as_deref().is_some_and(|host| self.is_known(host)) {
            return None;
        }
        let host = host.unwrap_or_default();
        let why = format!(
            "{host:?} is no name of this node: ask for {} or its address, or list the name in \
             [agent] allowed_hosts\n",
            self.identity.node()
        );
        Some(text(StatusCode::MISDIRECTED_REQUEST, why))
    }

    fn is_known(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        // Nobody on the internet has a name without a dot, or one below `localhost` (RFC 6761).
        bare.unwrap_or(host).parse::<IpAddr>().is_ok()
            || !host.contains('.')
            || host.ends_with(".localhost")
            || self.more.iter().any(|it| it.eq_ignore_ascii_case(host))
            || self
                .identity
                .called()
                .iter()
                .any(|it| it.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(host: &str) -> Option<StatusCode> {
        let hosts = Hosts::new(Identity::fake(), vec!["Node-7.example.com".to_owned()]);
        let request = Request::builder().header(HOST, host).body(()).unwrap();
        hosts.refuse(&request).map(|answer| answer.status())
    }

    #[test]
    fn names_that_anybody_may_have_are_refused() {
        for known in [
            "127.0.0.1:19110",
            "[::1]:19110",
            "192.0.2.7",
            "localhost:19110",
            "a.localhost",
            "node-7:19110",
            "NODE-7.EXAMPLE.COM.:19110",
        ] {
            assert_eq!(status(known), None, "{known}");
        }
        for anybody in [
            "rebind.example.net:19110",
            "node-7.example.net",
            "127.0.0.1.example.net",
            "localhost.example.net",
            "",
            "a b",
        ] {
            assert_eq!(
                status(anybody),
                Some(StatusCode::MISDIRECTED_REQUEST),
                "{anybody}"
            );
        }
        let hosts = Hosts::new(Identity::fake(), Vec::new());
        assert!(hosts.refuse(&Request::new(())).is_none());
    }
}
