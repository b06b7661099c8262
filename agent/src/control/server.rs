//! The agent's end: what commands ask it for.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    fs::{Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
    process::geteuid,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    sync::Mutex,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tracing::{debug, warn};

use super::{Answer, PATIENCE, Request, SOCKET, answer, line_of, stand_in};
use crate::{
    durable::Directory,
    model::{AilmentReport, Reports},
    treatment::TreatmentService,
};

/// Longer requests are none of ours.
const LONGEST: u64 = 64 << 10;

/// How long a peer may take for its request, which it writes at once.
const REQUEST: Duration = Duration::from_secs(2);

/// How long a treatment waits for the first reading, less than [`PATIENCE`].
const FIRST_READING: Duration = Duration::from_secs(8);

/// Peers that are served at once. People are few.
pub(super) const PEERS: usize = 32;

/// The socket, taken away when it is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    directory: Directory,
    /// Where the socket is in memory, if it is.
    stand_in: Option<PathBuf>,
}

impl Control {
    /// Makes the socket in the state directory. The caller has the lock, so an agent that was
    /// killed has left a socket that is there already. Where the disk of the state directory takes
    /// no new file, the socket is made in memory; `None` where that takes none either: a full disk
    /// keeps no agent from observing, and from undoing what is active.
    ///
    /// # Errors
    ///
    /// When it cannot be made for another reason.
    pub fn bind(directory: &Path) -> anyhow::Result<Option<Self>> {
        let directory = Directory::open(directory)?;
        let stand_in = stand_in(&directory)?;
        match Self::bind_in(directory, None) {
            Ok(control) => {
                // Of an agent before, from when the disk was full.
                remove(&stand_in);
                Ok(Some(control))
            }
            Err(error) if is_of_disk(&error) => {
                let place = stand_in.display();
                warn!("commands reach this agent at {place}, because it cannot {error:#}");
                let control = Directory::make(&stand_in)
                    .and_then(|directory| Self::bind_in(directory, Some(stand_in.clone())));
                Ok(control
                    .inspect_err(|error| warn!("no command reaches this agent: {error:#}"))
                    .ok())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn bind_in(directory: Directory, stand_in: Option<PathBuf>) -> anyhow::Result<Self> {
        let path = directory.path(SOCKET);
        let removed = directory.remove(SOCKET);
        removed.with_context(|| format!("remove {}", path.display()))?;
        let listener = listener(&path).with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self {
            listener,
            directory,
            stand_in,
        })
    }

    /// Answers all at once, so that none who says nothing delays another.
    pub async fn serve(
        &self,
        service: Arc<TreatmentService>,
        reports: Reports,
    ) -> std::convert::Infallible {
        let mut peers = JoinSet::new();
        let turn = Arc::new(Mutex::new(()));
        loop {
            while peers.try_join_next().is_some() {}
            if peers.len() >= PEERS {
                peers.join_next().await;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (service, reports) = (Arc::clone(&service), reports.clone());
                    let turn = Arc::clone(&turn);
                    peers.spawn(async move {
                        if let Err(error) = talk(stream, service, reports, &turn).await {
                            debug!("control socket: {error:#}");
                        }
                    });
                }
                Err(error) => {
                    warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// A socket with mode 0600 whatever the umask: `bind(2)` takes the mode of the socket's own inode
/// (net/unix/af_unix.c, `unix_bind_bsd`), so it is never open to others.
fn listener(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 128)?;
    UnixListener::from_std(socket.into())
}

impl Drop for Control {
    fn drop(&mut self) {
        // The next agent would do it.
        let _ = self.directory.remove(SOCKET);
        if let Some(stand_in) = &self.stand_in {
            remove(stand_in);
        }
    }
}

/// Whether it is the disk that takes no file.
fn is_of_disk(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(io::Error::kind);
    matches!(
        kind,
        Some(
            io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
        )
    )
}

/// Removes what stood in for a state directory, if it is there and nobody else's.
fn remove(stand_in: &Path) {
    if let Ok(Some(directory)) = Directory::open_existing(stand_in) {
        let _ = directory.remove(SOCKET);
        let _ = std::fs::remove_dir(stand_in);
    }
}

/// Waits until every ailment is measured that is going to be: nothing can be treated before, and
/// an agent that has just started is there in a moment.
async fn first_reading(reports: &mut Reports) {
    let measured = reports.wait_for(|last| {
        let ailments = last.as_ref().map(|last| last.report.ailments.iter());
        ailments.is_some_and(|mut it| !it.any(AilmentReport::is_about_to_be_measured))
    });
    // Whatever is not measured by then is refused with its reason.
    let _ = timeout(FIRST_READING, measured).await;
}

async fn talk(
    mut stream: tokio::net::UnixStream,
    service: Arc<TreatmentService>,
    mut reports: Reports,
    turn: &Mutex<()>,
) -> anyhow::Result<()> {
    let uid = stream.peer_cred().context("learn who asks")?.uid();
    let (reader, mut writer) = stream.split();
    let request = timeout(REQUEST, request(reader)).await;
    let request = request.context("no request came")?;
    let answer = async {
        match request? {
            _ if !is_allowed(uid) => Ok(Answer::not_understood(format!(
                "the user with id {uid} may not ask this agent: its own user and root may"
            ))),
            Ok(request) => {
                if matches!(request, Request::Treat { .. }) {
                    first_reading(&mut reports).await;
                }
                // The engine does one thing at a time. Who waits for it takes no thread.
                let _turn = turn.lock().await;
                let answer = spawn_blocking(move || answer(request, uid, &service, &reports));
                anyhow::Ok(answer.await?)
            }
            Err(error) => Ok(Answer::not_understood(format!(
                "this agent ({}) does not understand: {error}",
                env!("CARGO_PKG_VERSION")
            ))),
        }
    };
    let answer = timeout(PATIENCE, answer)
        .await
        .context("it took too long")??;
    let sent = timeout(REQUEST, writer.write_all(line_of(&answer)?.as_bytes())).await;
    sent.context("the answer was not read")??;
    Ok(())
}

/// What a peer asks for, or why that is no request.
async fn request(
    reader: tokio::net::unix::ReadHalf<'_>,
) -> io::Result<serde_json::Result<Request>> {
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(LONGEST));
    reader.read_line(&mut line).await?;
    Ok(serde_json::from_str(&line))
}

/// Root may do all that the agent's user may.
pub(super) fn is_allowed(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}
