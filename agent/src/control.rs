//! How the command line talks to the agent of the node: a socket in the state directory,
//! which its owner and root alone can use. One JSON object a line each way, one of each.

mod client;
mod server;

use std::{path::PathBuf, time::Duration};

use rustix::fs::fstat;
use serde::{Deserialize, Serialize};

use crate::{
    durable::Directory,
    model::{Ending, Reports, Run, Trigger},
    treatment::{Ask, AskOutcome, Intent, Refusal, TreatmentService},
};

pub use client::{Asked, call, call_or_lock};
pub use server::Control;

/// Its name in the state directory.
const SOCKET: &str = "control";

/// Where the socket is when the state directory takes no new file, because its disk is full or can
/// only be read: to undo a treatment must never need disk. It is in memory, on nodes and in
/// containers.
const MEMORY: &str = "/dev/shm";

/// How long an answer may take: undoing takes no longer than a few writes to a disk.
const PATIENCE: Duration = Duration::from_secs(10);

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
    fn not_understood(why: String) -> Self {
        Self::Refused {
            reason: "request".to_owned(),
            why,
        }
    }

    /// What was not done, and why.
    pub fn refused(refusal: &Refusal) -> Self {
        Self::Refused {
            reason: refusal.reason().to_owned(),
            why: refusal.to_string(),
        }
    }
}

/// The directory in memory that stands for this one. The name says which: two agents of one node
/// can have different state directories.
fn stand_in(directory: &Directory) -> std::io::Result<PathBuf> {
    let of = fstat(directory.descriptor())?;
    let name = format!("nodemedic-{:x}-{:x}", of.st_dev, of.st_ino);
    Ok(PathBuf::from(MEMORY).join(name))
}

fn line_of<T: Serialize>(value: &T) -> serde_json::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

#[cfg(test)]
mod tests;
