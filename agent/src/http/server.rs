//! Connections: how many, how many of one peer, how large, how long, in the clear or not.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Tls, answer::Answer, peer::Peer};

/// Request line and headers, bytes.
const REQUEST_SIZE: usize = 16 * 1024;
const REQUEST_HEADERS: usize = 64;

/// What a listener takes. A connection carries one request, so a client that is slow cannot keep
/// one for long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time. More wait in the kernel's queue.
    connections: usize,
    /// Those of one peer. More are closed at once.
    of_a_peer: usize,
    /// Connections that are read from and written to at a time. The others wait.
    served: usize,
    /// Those of one peer.
    served_of_a_peer: usize,
    /// For the others to come to their turn.
    turn_within: Duration,
    /// From then to the end of the handshake of TLS.
    handshake_within: Duration,
    /// From then to the end of the headers.
    headers_within: Duration,
    /// From the turn to the last byte of the answer.
    done_within: Duration,
    /// Whether a further connection takes the place of the oldest, rather than to wait or to be
    /// closed. One that is answered at once is never old.
    newest_wins: bool,
}

impl Limits {
    /// Of pages and webhooks. A quarter each, so that it takes four hosts to keep others waiting.
    pub const WORK: Self = Self {
        connections: 256,
        of_a_peer: 64,
        served: 64,
        served_of_a_peer: 16,
        turn_within: Duration::from_secs(10),
        handshake_within: Duration::from_secs(5),
        headers_within: Duration::from_secs(5),
        done_within: Duration::from_secs(30),
        newest_wins: false,
    };

    /// Of the health checks, which are asked and answered within a moment.
    pub const HEALTH: Self = Self {
        connections: 64,
        of_a_peer: 16,
        served: 64,
        served_of_a_peer: 16,
        turn_within: Duration::from_secs(1),
        handshake_within: Duration::from_secs(1),
        headers_within: Duration::from_secs(1),
        done_within: Duration::from_secs(2),
        newest_wins: true,
    };
}

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Called once a request. An error is an answer like any other.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// How many connections a listener has closed because their peer, or all, had their share.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<AtomicU64>);

impl Refusals {
    /// Since the start.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Listens, and has a [`Service`] answer.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
    connections: Arc<Semaphore>,
    served: Arc<Semaphore>,
    peers: Arc<Peers>,
    /// The connections of a listener where the newest wins, oldest first.
    evictable: Mutex<Vec<(Peer, AbortHandle)>>,
    refusals: Refusals,
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
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Tls>,
        keys: &str,
        limits: Limits,
    ) -> anyhow::Result<Self> {
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
        Ok(Self {
            listener,
            address,
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            served: Arc::new(Semaphore::new(limits.served)),
            peers: Arc::default(),
            evictable: Mutex::default(),
            refusals: Refusals::default(),
            graceful: GracefulShutdown::new(),
            tls: tls.map(Arc::new),
        })
    }

    /// Where it listens, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it refuses.
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Answers until it is dropped. Connections that are open then stay so for
    /// [`Self::drain`].
    pub async fn serve<S: Service>(&self, service: Arc<S>) -> Infallible {
        loop {
            // The semaphore is never closed, so there is always a permit to wait for.
            let permit = match self.limits.newest_wins {
                true => None,
                false => Arc::clone(&self.connections).acquire_owned().await.ok(),
            };
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    if self.limits.newest_wins {
                        self.evict(Peer::of(from.ip()));
                    }
                    match Peers::seat(&self.peers, from, &self.limits) {
                        Some(seat) => self.connection(stream, permit, seat, Arc::clone(&service)),
                        None => {
                            self.refusals.0.fetch_add(1, Ordering::Relaxed);
                            debug!("{from} has its share of the connections already");
                        }
                    }
                }
                Err(error) => {
                    warn!("accept a connection on {}: {error}", self.address);
                    // Out of file descriptors, most likely: do not spin.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Makes room for one more connection of a peer.
    fn evict(&self, peer: Peer) {
        let mut evictable = self.evictable();
        evictable.retain(|(_, connection)| !connection.is_finished());
        let of_the_peer = evictable.iter().filter(|(of, _)| *of == peer).count();
        let oldest = match of_the_peer >= self.limits.of_a_peer {
            true => evictable.iter().position(|(of, _)| *of == peer),
            false => (evictable.len() >= self.limits.connections).then_some(0),
        };
        if let Some(oldest) = oldest {
            evictable.remove(oldest).1.abort();
            self.refusals.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn evictable(&self) -> MutexGuard<'_, Vec<(Peer, AbortHandle)>> {
        self.evictable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
        seat: Seat,
        service: Arc<S>,
    ) {
        let watcher = self.graceful.watcher();
        let (tls, limits, served) = (self.tls.clone(), self.limits, Arc::clone(&self.served));
        let peer = seat.peer;
        let task = tokio::spawn(async move {
            let turn = async {
                // The peer's own share first: its others must not wait in the place of strangers.
                let own = Arc::clone(&seat.turns).acquire_owned().await;
                (own, served.acquire_owned().await)
            };
            let Ok(_turn) = timeout(limits.turn_within, turn).await else {
                debug!("a connection waited too long for its turn");
                return;
            };
            let client = Client {
                peer: seat.peer,
                limits,
                watcher,
            };
            let talk = async {
                match tls {
                    Some(tls) => {
                        let shake = tls.acceptor().accept(stream);
                        match timeout(limits.handshake_within, shake).await {
                            Ok(Ok(stream)) => client.talk(stream, service).await,
                            Ok(Err(error)) => debug!("no handshake: {error}"),
                            Err(_) => debug!("a handshake took too long"),
                        }
                    }
                    None => client.talk(stream, service).await,
                }
            };
            if timeout(limits.done_within, talk).await.is_err() {
                debug!("a connection took too long and was closed");
            }
            drop((seat, permit));
        });
        if limits.newest_wins {
            self.evictable().push((peer, task.abort_handle()));
        }
    }
}

/// The other end of a connection.
struct Client {
    peer: Peer,
    limits: Limits,
    watcher: Watcher,
}

impl Client {
    /// One request and its answer.
    async fn talk<S: Service>(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        service: Arc<S>,
    ) {
        let peer = self.peer;
        let service = service_fn(move |mut request: Request<Incoming>| {
            let service = Arc::clone(&service);
            request.extensions_mut().insert(peer);
            async move { Ok::<Answer, Infallible>(service.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.headers_within)
            .max_header_size(REQUEST_SIZE)
            .max_buf_size(REQUEST_SIZE)
            .max_headers(REQUEST_HEADERS)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = self.watcher.watch(connection).await {
            debug!("a connection ended early: {error}");
        }
    }
}

/// The peers that have connections.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<Peer, Connections>>);

#[derive(Debug)]
struct Connections {
    count: usize,
    turns: Arc<Semaphore>,
}

/// The place of a connection, until it is dropped.
struct Seat {
    peers: Arc<Peers>,
    peer: Peer,
    turns: Arc<Semaphore>,
}

impl Peers {
    /// A place for one more connection of a peer; `None` where it has its share.
    fn seat(peers: &Arc<Self>, from: SocketAddr, limits: &Limits) -> Option<Seat> {
        let peer = Peer::of(from.ip());
        let mut known = peers.known();
        let connections = known.entry(peer).or_insert_with(|| Connections {
            count: 0,
            turns: Arc::new(Semaphore::new(limits.served_of_a_peer)),
        });
        // Those that were evicted end in a moment.
        if connections.count >= limits.of_a_peer && !limits.newest_wins {
            return None;
        }
        connections.count += 1;
        Some(Seat {
            peers: Arc::clone(peers),
            peer,
            turns: Arc::clone(&connections.turns),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Peer, Connections>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut known = self.peers.known();
        if let Some(connections) = known.get_mut(&self.peer) {
            connections.count -= 1;
            if connections.count == 0 {
                known.remove(&self.peer);
            }
        }
    }
}
