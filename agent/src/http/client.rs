//! Asks others something, over HTTP or HTTPS.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Misconfigured, TlsClient, Token, Url, body};

/// Memory for all answers that a client has at a time, KiB. Further ones wait for it.
const ANSWERS: usize = 32 << 10;

/// What is answered. Its memory counts until it is dropped.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub code: StatusCode,
    /// All of it.
    pub body: Bytes,
    _room: OwnedSemaphorePermit,
}

/// How others are asked: keys of a table of the configuration.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The table.
    pub table: &'static str,
    /// Whom it is about, as the names of its keys begin: `agent` in `agent_ca_file`.
    pub whom: &'static str,
    /// The file of the bearer token that they are shown; empty for none.
    pub token_file: PathBuf,
    /// The file of the certificates that vouch for theirs; empty for none.
    pub ca_file: PathBuf,
    /// The name in their certificate; empty for the host that is asked.
    pub server_name: String,
    /// The file of the certificate that they are shown; empty for none.
    pub cert_file: PathBuf,
    /// The file of its key.
    pub key_file: PathBuf,
    /// Whether any of them speaks HTTPS.
    pub is_https: bool,
    /// How long an answer may take.
    pub within: Duration,
    /// The largest answer, bytes.
    pub largest: usize,
}

/// Asks others.
#[derive(Debug)]
pub struct Client {
    token: Option<Token>,
    tls: Option<TlsClient>,
    server_name: Option<ServerName<'static>>,
    within: Duration,
    largest: usize,
    room: Arc<Semaphore>,
    ca_key: String,
}

impl Client {
    /// As the configuration has it.
    ///
    /// # Errors
    ///
    /// When a file cannot be used, or is missing where another is set.
    pub fn open(config: &ClientConfig) -> anyhow::Result<Self> {
        Self::of(config).map_err(|why| Misconfigured::because(why).into())
    }

    fn of(config: &ClientConfig) -> anyhow::Result<Self> {
        let named = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        let key = |name: &str| format!("[{}] {}_{name}", config.table, config.whom);
        let token = named(&config.token_file).map(|file| Token::open(&file));
        let token = token.transpose().with_context(|| key("token_file"))?;
        let own = match (named(&config.cert_file), named(&config.key_file)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let (cert, key) = (key("cert_file"), key("key_file"));
                anyhow::bail!("{cert} and {key} need each other")
            }
        };
        let ca_file = named(&config.ca_file);
        ensure!(
            ca_file.is_some() || (own.is_none() && !config.is_https),
            "{} is required for https and for {}: the file of the CA certificates",
            key("ca_file"),
            key("cert_file")
        );
        let tls = ca_file.map(|file| TlsClient::open(&file, own)).transpose();
        let name = &config.server_name;
        let name = (!name.is_empty()).then(|| ServerName::try_from(name.clone()));
        Ok(Self {
            token,
            tls: tls.with_context(|| key("ca_file"))?,
            server_name: name
                .transpose()
                .with_context(|| format!("{} is no name", key("server_name")))?,
            within: config.within,
            largest: config.largest,
            room: Arc::new(Semaphore::new(ANSWERS)),
            ca_key: key("ca_file"),
        })
    }

    /// Gets a page, which anybody may have.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn get(&self, at: &Url, path: &str) -> Result<Reply, String> {
        let request = self.request(Method::GET, at, path, Bytes::new())?;
        self.ask(at, request).await
    }

    /// Gets a page, with the token.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn get_with_token(&self, at: &Url, path: &str) -> Result<Reply, String> {
        let mut request = self.request(Method::GET, at, path, Bytes::new())?;
        self.sign(&mut request)?;
        self.ask(at, request).await
    }

    /// Posts something, with the token and one more header.
    ///
    /// # Errors
    ///
    /// Why there is no answer. It may have arrived all the same.
    pub async fn post(
        &self,
        at: &Url,
        path: &str,
        json: Bytes,
        (name, value): (&'static str, HeaderValue),
    ) -> Result<Reply, String> {
        let mut request = self.request(Method::POST, at, path, json)?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        request.headers_mut().insert(name, value);
        self.sign(&mut request)?;
        self.ask(at, request).await
    }

    fn sign(&self, request: &mut Request<Full<Bytes>>) -> Result<(), String> {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.header()?);
        }
        Ok(())
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

    async fn ask(&self, at: &Url, request: Request<Full<Bytes>>) -> Result<Reply, String> {
        let whole = timeout(self.within, self.exchange(at, request)).await;
        let whole = whole.unwrap_or_else(|_| {
            let within = humantime::format_duration(self.within);
            Err(anyhow::anyhow!("no answer within {within}"))
        });
        whole.map_err(|error| format!("{at}: {error:#}"))
    }

    async fn exchange(&self, at: &Url, request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let stream = TcpStream::connect((at.host.as_str(), at.port)).await;
        let stream = stream.context("connect")?;
        if !at.is_https {
            return self.talk(stream, request).await;
        }
        let tls = self
            .tls
            .as_ref()
            .with_context(|| format!("no {}", self.ca_key))?;
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(at.host.clone())?,
        };
        let stream = tls.connector().connect(name, stream).await;
        self.talk(stream.context("handshake")?, request).await
    }

    /// Waits until there is memory for an answer: as much as it announces, else as it may have.
    async fn room_for(&self, answer: &Response<Incoming>) -> anyhow::Result<OwnedSemaphorePermit> {
        let announced = answer.body().size_hint().exact();
        let size = announced.map_or(self.largest, |size| size.try_into().unwrap_or(usize::MAX));
        ensure!(
            size <= self.largest,
            "its answer has {size} bytes, and may have {}",
            self.largest
        );
        let kibibytes = size.div_ceil(1 << 10).clamp(1, ANSWERS).try_into()?;
        Ok(Arc::clone(&self.room).acquire_many_owned(kibibytes).await?)
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Reply> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let talk = async {
            let answer = sender.send_request(request).await?;
            let code = answer.status();
            let room = self.room_for(&answer).await?;
            let body = body::read(answer.into_body(), self.largest, self.within).await;
            let body = body.map_err(|why| anyhow::anyhow!("its answer: {why}"))?;
            Ok(Reply {
                code,
                body,
                _room: room,
            })
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
