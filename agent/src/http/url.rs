//! Where a server is.

use std::fmt;

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
