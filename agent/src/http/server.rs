//! Connections: how many, how large, how long, in the clear or not.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Tls, answer::Answer};

/// At one time. More wait in the kernel's queue until one is free.
const CONNECTIONS: usize = 64;
/// From the connect to the end of the handshake of TLS.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// From the first byte of a request to the end of its headers.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// From the connect to the last byte of the answer. A connection carries a single
/// request, so a client that reads slowly or not at all cannot keep one for long.
const DONE_WITHIN: Duration = Duration::from_secs(30);
/// Request line and headers, bytes.
const REQUEST_SIZE: usize = 16 * 1024;
const REQUEST_HEADERS: usize = 64;

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Called once a request. An error is an answer like any other.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Listens, and has a [`Service`] answer.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    connections: Arc<Semaphore>,
    graceful: GracefulShutdown,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Starts to listen; connections wait until [`Self::serve`] runs.
    ///
    /// # Errors
    ///
    /// When the address is not this machine's, or somebody else listens there; `keys`
    /// names what takes another address.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>, keys: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "listen on {address} (is another nodemedic running? `ss -ltnp 'sport = :{}'` \
                 shows the owner of the port; {keys} selects another)",
                address.port()
            )
        })?;
        let address = listener
            .local_addr()
            .context("read the address that was bound")?;
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Self {
            listener,
            address,
            connections,
            graceful: GracefulShutdown::new(),
            tls: tls.map(Arc::new),
        })
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped. Connections that are open then stay so for
    /// [`Self::drain`].
    pub async fn serve<S: Service>(&self, service: Arc<S>) -> Infallible {
        loop {
            // The semaphore is never closed, so there is always a permit to wait for.
            let permit = Arc::clone(&self.connections).acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, _)) => self.connection(stream, permit, Arc::clone(&service)),
                Err(error) => {
                    warn!("accept a connection on {}: {error}", self.address);
                    // Out of file descriptors, most likely: do not spin.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Takes no more connections, and waits for the answers under way.
    pub async fn drain(self) {
        drop(self.listener);
        self.graceful.shutdown().await;
    }

    fn connection<S: Service>(
        &self,
        stream: TcpStream,
        permit: Option<OwnedSemaphorePermit>,
        service: Arc<S>,
    ) {
        let watcher = self.graceful.watcher();
        let tls = self.tls.clone();
        tokio::spawn(async move {
            let talk = async {
                match tls {
                    Some(tls) => {
                        match timeout(HANDSHAKE_WITHIN, tls.acceptor().accept(stream)).await {
                            Ok(Ok(stream)) => talk(stream, service, watcher).await,
                            Ok(Err(error)) => debug!("no handshake: {error}"),
                            Err(_) => debug!("a handshake took too long"),
                        }
                    }
                    None => talk(stream, service, watcher).await,
                }
            };
            if timeout(DONE_WITHIN, talk).await.is_err() {
                debug!("a connection took too long and was closed");
            }
            drop(permit);
        });
    }
}

/// One request and its answer.
async fn talk<S: Service>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    service: Arc<S>,
    watcher: Watcher,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<Answer, Infallible>(service.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_header_size(REQUEST_SIZE)
        .max_buf_size(REQUEST_SIZE)
        .max_headers(REQUEST_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        debug!("a connection ended early: {error}");
    }
}
