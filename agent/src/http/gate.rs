//! Who may ask for something to be done, how often, and how much they may say.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use tracing::warn;

use super::{
    Misconfigured, Tls, Token,
    answer::{Answer, later, not_allowed, text},
    body::{self, Memory, NoBody, Received},
    peer::Peer,
    rate::Rate,
};

/// From the end of the headers to the end of the body.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// How long a refused client may go on sending before it has to read the answer.
const DISCARDED_WITHIN: Duration = Duration::from_secs(1);

/// Memory for all bodies at a time, bytes; where two of the largest take more, as much as they do.
const BODIES: usize = 16 << 20;

/// What a browser adds to requests that a page makes (fetch.spec.whatwg.org, 3.1; w3c/
/// webappsec-fetch-metadata).
const OF_A_BROWSER: [&str; 2] = ["origin", "sec-fetch-site"];

/// A gate as the configuration has it.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// The table that it stands in, for what is said of it.
    pub table: &'static str,
    /// Where it is.
    pub listen: SocketAddr,
    /// The web configuration; empty for no TLS.
    pub web_config: PathBuf,
    /// The file of the token; empty for none.
    pub token_file: PathBuf,
    /// The largest body, bytes.
    pub max_body_bytes: usize,
    /// Requests a minute.
    pub max_requests_per_minute: u32,
}

/// Lets those in who may.
#[derive(Debug)]
pub struct Gate {
    token: Option<Token>,
    /// Whether neither a token nor a certificate says who a client is.
    is_open: bool,
    rate: Rate,
    max_body_bytes: usize,
    memory: Arc<Memory>,
}

impl Gate {
    /// The gate, and the TLS of its listener.
    ///
    /// # Errors
    ///
    /// When a file cannot be used, or anybody on the network could come in.
    pub fn open(config: &GateConfig) -> anyhow::Result<(Self, Option<Tls>)> {
        Self::of(config).map_err(|why| Misconfigured::because(why).into())
    }

    fn of(config: &GateConfig) -> anyhow::Result<(Self, Option<Tls>)> {
        let table = config.table;
        let token = named(&config.token_file).map(Token::open).transpose();
        let token = token.with_context(|| format!("[{table}] token_file"))?;
        let tls = named(&config.web_config).map(Tls::open).transpose();
        let tls = tls.with_context(|| format!("[{table}] web_config"))?;
        let is_local = config.listen.ip().is_loopback();
        let is_open = token.is_none() && !tls.as_ref().is_some_and(Tls::identifies_clients);
        ensure!(
            is_local || !is_open,
            "[{table}] listen is {}, which others can reach without authentication: set \
             token_file, or web_config with client_auth_type RequireAndVerifyClientCert, or \
             listen on 127.0.0.1",
            config.listen
        );
        if is_open {
            warn!(
                "[{table}] has no token_file: every process of this node can post to {}",
                config.listen
            );
        }
        if !is_local && tls.is_none() {
            warn!("[{table}] has no web_config: the token crosses the network in clear text");
        }
        let gate = Self {
            token,
            is_open,
            rate: Rate::new(config.max_requests_per_minute, Instant::now()),
            max_body_bytes: config.max_body_bytes,
            memory: Arc::new(Memory::new(
                BODIES.max(config.max_body_bytes.saturating_mul(2)),
            )),
        };
        Ok((gate, tls))
    }

    /// The body of a POST of this path. Who somebody is goes first, so that strangers learn
    /// nothing, use up nobody's turn, and take no memory.
    ///
    /// # Errors
    ///
    /// The answer to a request that does not get in.
    pub async fn post(&self, path: &str, request: Request<Incoming>) -> Result<Received, Answer> {
        let peer = request.extensions().get::<Peer>().copied();
        let refused = self.refuses(path, &request);
        let body = request.into_body();
        match (refused, peer) {
            (Some(refused), _) => {
                // Who is refused would not see why while it is still sending.
                body::discard(body, self.max_body_bytes, DISCARDED_WITHIN).await;
                Err(refused)
            }
            (None, None) => Err(later(
                "nobody knows from where this request comes",
                BODY_WITHIN,
            )),
            (None, Some(peer)) => {
                let (most, memory) = (self.max_body_bytes, &self.memory);
                let body = body::receive(body, most, BODY_WITHIN, memory, peer).await;
                body.map_err(|why| self.no_body(why))
            }
        }
    }

    fn refuses(&self, path: &str, request: &Request<Incoming>) -> Option<Answer> {
        self.stranger(request.headers().get(AUTHORIZATION))
            .or_else(|| {
                self.is_open
                    .then(|| of_a_browser(request.headers()))
                    .flatten()
            })
            .or_else(|| self.too_often())
            .or_else(|| {
                let there = text(
                    StatusCode::NOT_FOUND,
                    format!("there is nothing but {path} here\n"),
                );
                (request.uri().path() != path).then_some(there)
            })
            .or_else(|| (request.method() != Method::POST).then(|| not_allowed(&[Method::POST])))
    }

    fn stranger(&self, header: Option<&HeaderValue>) -> Option<Answer> {
        match self.token.as_ref()?.is_carried_by(header) {
            Ok(true) => None,
            Ok(false) => {
                let why = "the token is missing or wrong: send the one of token_file as \
                           `Authorization: Bearer TOKEN`\n";
                let mut answer = text(StatusCode::UNAUTHORIZED, why);
                let scheme = HeaderValue::from_static("Bearer");
                answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
                Some(answer)
            }
            Err(_) => Some(later(
                "the file of the token cannot be used, see the log",
                BODY_WITHIN,
            )),
        }
    }

    /// Alertmanager tries again after an answer of the 5xx alone, so this is no 429.
    fn too_often(&self) -> Option<Answer> {
        let wait = self.rate.take(Instant::now()).err()?;
        Some(later("there were too many requests", wait))
    }

    fn no_body(&self, why: NoBody) -> Answer {
        match why {
            NoBody::TooLarge => text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the body is larger than {} bytes: set max_alerts of the receiver, group by \
                     node, or raise max_body_bytes\n",
                    self.max_body_bytes
                ),
            ),
            NoBody::NoRoom => later(&NoBody::NoRoom.to_string(), Duration::from_secs(1)),
            NoBody::Late => text(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body was not here within {} s\n", BODY_WITHIN.as_secs()),
            ),
            NoBody::Broken(why) => text(
                StatusCode::BAD_REQUEST,
                format!("the body ended before its end: {why}\n"),
            ),
        }
    }
}

/// The answer to a request that a page in a browser can have made: where there is no token, the
/// browser of a user of this machine must not become the sender. A page cannot send JSON to another
/// origin unless that allows it, and every POST of it has an `Origin`.
fn of_a_browser(headers: &HeaderMap) -> Option<Answer> {
    if let Some(header) = OF_A_BROWSER.iter().find(|it| headers.contains_key(**it)) {
        let why = format!(
            "a request with the header {header} comes from a browser; without token_file, browsers \
             are refused\n"
        );
        return Some(text(StatusCode::FORBIDDEN, why));
    }
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next();
        kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
    });
    let why = "send it as `Content-Type: application/json`, or set token_file and send the token\n";
    (!is_json).then(|| text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
}

/// A path that is set.
fn named(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(listen: &str, token_file: &Path) -> anyhow::Result<(Gate, Option<Tls>)> {
        Gate::open(&GateConfig {
            table: "webhook",
            listen: listen.parse().unwrap(),
            web_config: PathBuf::new(),
            token_file: token_file.to_owned(),
            max_body_bytes: 1_000,
            max_requests_per_minute: 60,
        })
    }

    #[test]
    fn where_others_can_come_they_have_to_say_who_they_are() {
        for local in ["127.0.0.1:1", "[::1]:1"] {
            assert!(open(local, Path::new("")).is_ok(), "{local}");
        }
        for open_to_all in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            let error = open(open_to_all, Path::new("")).unwrap_err().to_string();
            assert!(error.contains("token_file"), "{error}");
        }
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "secret").unwrap();
        assert!(open("0.0.0.0:1", token.path()).is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_key() {
        let error = open("127.0.0.1:1", Path::new("/nonexistent")).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("[webhook] token_file"), "{error}");
    }
}
