//! From a request to the answer that tells what was decided.

use std::sync::Arc;

use hyper::{Request, StatusCode, body::Incoming, header::RETRY_AFTER};
use serde::Serialize;
use tokio::{sync::Mutex, task::JoinError};
use tracing::{error, warn};

use super::{AlertOutcome, DISPATCHER, Payload};
use crate::http::{Answer, Gate, Service, json, text};

/// Where alerts are posted.
pub const PATH: &str = "/alertmanager";

/// Decides on alerts.
pub trait Receiver: Send + Sync + 'static {
    /// What is told of each alert.
    type AlertOutcome: Serialize + Send;

    /// Called with each payload that was let in, and the number of the dispatcher that sends it.
    fn receive(
        &self,
        payload: Payload,
        from: Option<u64>,
    ) -> impl Future<Output = Receipt<Self::AlertOutcome>> + Send;

    /// Called with the code of each answer, and how many alerts the payload lacked.
    fn count(&self, code: u16, truncated: u64);
}

/// What was decided of all alerts of a payload.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt<R> {
    /// Of each alert, up to [`MOST_LISTED`].
    pub alerts: Vec<R>,
    /// How many are not listed.
    #[serde(rename = "unlistedAlerts", skip_serializing_if = "is_zero")]
    pub unlisted: usize,
    /// Whether all of it is to be sent again.
    #[serde(skip)]
    pub again: bool,
}

/// Of a group with thousands of alerts nobody reads them all.
const MOST_LISTED: usize = 1_000;

/// After a 503, when the sender may try again: at the speed of the agents' ticks.
const AGAIN_AFTER_SECONDS: u64 = 5;

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Receipt<AlertOutcome> {
    /// With all outcomes.
    pub fn of(mut outcomes: Vec<AlertOutcome>) -> Self {
        let again = outcomes.iter().any(|it| it.decision.is_passing());
        let unlisted = outcomes.len().saturating_sub(MOST_LISTED);
        outcomes.truncate(MOST_LISTED);
        Self {
            alerts: outcomes,
            unlisted,
            again,
        }
    }
}

impl<R> Receipt<R> {
    /// Of a task that decides, which may have panicked.
    pub fn of_task(decided: Result<Self, JoinError>) -> Self {
        decided.unwrap_or_else(|error| {
            error!("a payload could not be decided on: {error}");
            Self {
                alerts: Vec::new(),
                unlisted: 0,
                again: true,
            }
        })
    }
}

/// A [`Receiver`] behind its gate.
#[derive(Debug)]
pub struct Intake<R> {
    gate: Gate,
    /// Payloads are read one at a time: as text they are bounded, and what is made of them takes
    /// several times as much.
    turn: Mutex<()>,
    receiver: Arc<R>,
}

/// The body of the answer.
#[derive(Serialize)]
struct AlertsResponse<R> {
    #[serde(flatten)]
    receipt: Receipt<R>,
    #[serde(rename = "truncatedAlerts")]
    truncated: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl<R: Receiver> Intake<R> {
    /// Has a receiver decide on what comes through a gate.
    pub fn new(gate: Gate, receiver: Arc<R>) -> Self {
        Self {
            gate,
            turn: Mutex::default(),
            receiver,
        }
    }

    /// The answer, and how many alerts the payload lacked.
    async fn take(&self, request: Request<Incoming>) -> (Answer, u64) {
        let from = request.headers().get(DISPATCHER);
        let from = from.and_then(|it| it.to_str().ok()?.parse().ok());
        let body = match self.gate.post(PATH, request).await {
            Ok(body) => body,
            Err(refused) => return (refused, 0),
        };
        let _turn = self.turn.lock().await;
        let parsed = Payload::parse(&body);
        drop(body);
        let payload = match parsed {
            Ok(payload) => payload,
            Err(why) => {
                warn!("a payload is refused: {why}");
                return (text(StatusCode::BAD_REQUEST, why + "\n"), 0);
            }
        };
        let truncated = payload.truncated_alerts;
        let warning = (truncated > 0).then(|| lacking(&payload));
        if let Some(warning) = &warning {
            warn!(group = payload.group_key, "{warning}");
        }
        let receipt = self.receiver.receive(payload, from).await;
        let code = if receipt.again {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        let response = AlertsResponse {
            receipt,
            truncated,
            warning,
        };
        let mut answer = json(code, &response);
        if response.receipt.again {
            answer
                .headers_mut()
                .insert(RETRY_AFTER, AGAIN_AFTER_SECONDS.into());
        }
        (answer, truncated)
    }
}

fn lacking(payload: &Payload) -> String {
    format!(
        "{} alerts were cut off by max_alerts of the receiver, and nothing is done about them: set \
         max_alerts: 0",
        payload.truncated_alerts
    )
}

impl<R: Receiver> Service for Intake<R> {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (answer, truncated) = self.take(request).await;
        self.receiver.count(answer.status().as_u16(), truncated);
        answer
    }
}
