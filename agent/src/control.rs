//! How the command line talks to the agent of the node: a socket in the state directory,
//! which its owner alone can enter. One JSON object a line each way, one of each.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
    task::spawn_blocking,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    model::{AilmentReport, Ending, Reports, Run, Trigger},
    treatment::{Ask, AskOutcome, Intent, Refusal, TreatmentService},
};

/// Its name in the state directory.
const SOCKET: &str = "control";

/// Longer requests are none of ours.
const LONGEST: u64 = 64 << 10;

/// How long a peer may take: who writes does so at once, and undoing takes no longer than
/// a few writes to a disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a treatment waits for the first reading, less than [`PATIENCE`].
const FIRST_READING: Duration = Duration::from_secs(8);

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// What is active, and what was.
    Status,
    /// Treat an ailment.
    Treat {
        /// Which.
        ailment: String,
        /// With what; if nothing, the first that may be.
        treatment: Option<String>,
        /// For how long; if nothing, as configured.
        #[serde(with = "humantime_serde")]
        duration: Option<Duration>,
        /// Whether to do it whatever the mode.
        apply: bool,
        /// Only tell.
        dry_run: bool,
        /// Though the node is healthy.
        force: bool,
    },
    /// End one treatment, or all.
    Undo {
        /// Which; all, if nothing.
        id: Option<u64>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Answer {
    /// To [`Request::Status`].
    Status {
        /// Oldest first.
        runs: Vec<Run>,
        /// Why nothing can be begun, if so.
        trouble: Option<String>,
    },
    /// It was begun.
    Begun {
        /// What.
        run: Box<Run>,
    },
    /// It would be.
    Would {
        /// What.
        run: Box<Run>,
    },
    /// They have ended.
    Undone {
        /// How.
        runs: Vec<Run>,
    },
    /// It was not done.
    Refused {
        /// Why, in a word; see [`Refusal::reason`].
        reason: String,
        /// Why.
        why: String,
    },
}

/// Does what is asked for. May block.
pub fn answer(request: Request, uid: u32, service: &TreatmentService, reports: &Reports) -> Answer {
    match request {
        Request::Status => {
            let (runs, trouble) = service.status();
            Answer::Status { runs, trouble }
        }
        Request::Treat {
            ailment,
            treatment,
            duration,
            apply,
            dry_run,
            force,
        } => {
            let intent = match (apply, dry_run) {
                (_, true) => Intent::DryRun,
                (true, false) => Intent::Apply,
                (false, false) => Intent::AsConfigured,
            };
            let ask = Ask {
                ailment,
                treatment,
                against: None,
                trigger: Trigger::Manual { uid },
                duration,
                intent,
                force,
            };
            match service.ask(&ask, reports) {
                Ok(AskOutcome::Begun(run)) => Answer::Begun { run: Box::new(run) },
                Ok(AskOutcome::Would(run)) => Answer::Would { run: Box::new(run) },
                Err(refusal) => Answer::refused(&refusal),
            }
        }
        Request::Undo { id } => match service.undo(id, Ending::Requested) {
            Ok(runs) => Answer::Undone { runs },
            Err(refusal) => Answer::refused(&refusal),
        },
    }
}

impl Answer {
    /// What was not done, and why.
    pub fn refused(refusal: &Refusal) -> Self {
        Self::Refused {
            reason: refusal.reason().to_owned(),
            why: refusal.to_string(),
        }
    }
}

/// The socket, taken away when it is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Makes the socket in the state directory, of which the caller has the lock: one
    /// that is there already was left by an agent that was killed.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn bind(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self { listener, path })
    }

    /// Answers one after the other: there are few, from people.
    pub async fn serve(
        &self,
        service: Arc<TreatmentService>,
        reports: Reports,
    ) -> std::convert::Infallible {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let talk = talk(stream, Arc::clone(&service), reports.clone());
                    match timeout(PATIENCE, talk).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!("control socket: {error:#}"),
                        Err(_) => debug!("control socket: nothing came"),
                    }
                }
                Err(error) => {
                    warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The next agent would do it.
        let _ = fs::remove_file(&self.path);
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
) -> anyhow::Result<()> {
    let uid = stream.peer_cred().context("learn who asks")?.uid();
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    tokio::io::BufReader::new(reader.take(LONGEST))
        .read_line(&mut line)
        .await?;
    let request = serde_json::from_str(&line);
    let answer = match request {
        Ok(request) => {
            if matches!(request, Request::Treat { .. }) {
                first_reading(&mut reports).await;
            }
            spawn_blocking(move || answer(request, uid, &service, &reports)).await?
        }
        Err(error) => Answer::Refused {
            reason: "request".to_owned(),
            why: format!(
                "this agent ({}) does not understand: {error}",
                env!("CARGO_PKG_VERSION")
            ),
        },
    };
    writer.write_all(line_of(&answer)?.as_bytes()).await?;
    Ok(())
}

fn line_of<T: Serialize>(value: &T) -> serde_json::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// Asks the agent that runs on this node; `None` where none does.
///
/// # Errors
///
/// When there is one, and it does not answer.
pub fn call(directory: &Path, request: &Request) -> anyhow::Result<Option<Answer>> {
    let path = directory.join(SOCKET);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error).with_context(|| format!("connect to {}", path.display())),
            };
        }
    };
    exchange(stream, request)
        .map(Some)
        .with_context(|| format!("ask the agent at {}", path.display()))
}

fn exchange<T: DeserializeOwned>(mut stream: UnixStream, request: &Request) -> anyhow::Result<T> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(line_of(request)?.as_bytes())?;
    let mut line = String::new();
    // A hundred runs are some 100 KiB.
    BufReader::new(stream.take(16 << 20)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
