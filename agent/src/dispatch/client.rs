//! Asks agents something, over HTTP or HTTPS.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{Dispatch, Url};
use crate::http::{TlsClient, Token, body};

/// A report of a node with hundreds of pods has some 200 KiB.
const LARGEST_ANSWER: usize = 16 << 20;

/// What an agent answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: StatusCode,
    /// All of it.
    pub body: Bytes,
}

/// Asks agents.
#[derive(Debug)]
pub struct Client {
    token: Option<Token>,
    tls: Option<TlsClient>,
    server_name: Option<ServerName<'static>>,
    within: Duration,
}

impl Client {
    /// As the configuration has it.
    ///
    /// # Errors
    ///
    /// When a file cannot be used, or is missing where another is set.
    pub fn open(config: &Dispatch) -> anyhow::Result<Self> {
        let named = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        let token = named(&config.agent_token_file).map(|file| Token::open(&file));
        let token = token.transpose().context("[dispatch] agent_token_file")?;
        let own = (
            named(&config.agent_cert_file),
            named(&config.agent_key_file),
        );
        let own = match own {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                anyhow::bail!("[dispatch] agent_cert_file and agent_key_file need each other")
            }
        };
        let ca_file = named(&config.agent_ca_file);
        let wants_tls = own.is_some() || config.agents.iter().any(|it| it.webhook.is_https);
        ensure!(
            ca_file.is_some() || !wants_tls,
            "[dispatch] agent_ca_file is needed for https and for agent_cert_file: it says who \
             vouches for the agents"
        );
        let tls = ca_file.map(|file| TlsClient::open(&file, own)).transpose();
        let name = &config.agent_server_name;
        let name = (!name.is_empty()).then(|| ServerName::try_from(name.clone()));
        Ok(Self {
            token,
            tls: tls.context("[dispatch] agent_ca_file")?,
            server_name: name
                .transpose()
                .context("[dispatch] agent_server_name is no name")?,
            within: config.agent_timeout,
        })
    }

    /// Gets a page, which anybody may have.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn get(&self, at: &Url, path: &str) -> Result<Answer, String> {
        let request = self.request(Method::GET, at, path, Bytes::new())?;
        self.ask(at, request).await
    }

    /// Posts something, with the token.
    ///
    /// # Errors
    ///
    /// Why there is no answer. It may have arrived all the same.
    pub async fn post(&self, at: &Url, path: &str, json: Bytes) -> Result<Answer, String> {
        let mut request = self.request(Method::POST, at, path, json)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.header()?);
        }
        self.ask(at, request).await
    }

    fn request(
        &self,
        method: Method,
        at: &Url,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, at.authority())
            .body(Full::new(body))
            .map_err(|error| error.to_string())
    }

    async fn ask(&self, at: &Url, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let whole = timeout(self.within, self.exchange(at, request)).await;
        let whole = whole.unwrap_or_else(|_| {
            let within = humantime::format_duration(self.within);
            Err(anyhow::anyhow!("no answer within {within}"))
        });
        whole.map_err(|error| format!("{at}: {error:#}"))
    }

    async fn exchange(&self, at: &Url, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect((at.host.as_str(), at.port)).await;
        let stream = stream.context("connect")?;
        if !at.is_https {
            return self.talk(stream, request).await;
        }
        let tls = self.tls.as_ref().context("no agent_ca_file")?;
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(at.host.clone())?,
        };
        let stream = tls.connector().connect(name, stream).await;
        self.talk(stream.context("handshake")?, request).await
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let talk = async {
            let answer = sender.send_request(request).await?;
            let code = answer.status();
            let body = body::read(answer.into_body(), LARGEST_ANSWER, self.within).await;
            let body = body.map_err(|why| anyhow::anyhow!("its answer: {why}"))?;
            Ok(Answer { code, body })
        };
        tokio::pin!(talk);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut talk => answer,
            ended = &mut connection => match ended {
                // What was read before is still to be had.
                Ok(()) => talk.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}
