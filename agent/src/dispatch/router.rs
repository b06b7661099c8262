//! Decides which agents get what, one payload after the other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{
    Agents, Census, Dispatch, Tally,
    brake::Brake,
    counts::OF_DISPATCH,
    post::{Letter, on, sort},
};
use crate::{
    http::Client,
    webhook::{Alert, Counts, Decision, PATH, Payload, Receipt, Receiver, Ruling},
};

/// Agents that are written to at a time.
const AT_ONCE: usize = 32;

/// The dispatcher. Between counting who is under treatment and the last answer of those
/// that were written to, nobody else is written to.
#[derive(Debug)]
pub struct Router {
    office: Arc<Office>,
    /// Whoever has it may have something begun.
    turn: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct Office {
    config: Dispatch,
    agents: Agents,
    client: Client,
    counts: Arc<Counts>,
    tally: Arc<Tally>,
}

/// Later than this after a payload came, no further agent is written to. With an answer that
/// is still awaited then, its sender is answered before the connection is closed.
const BEGUN_WITHIN: Duration = Duration::from_secs(15);

/// What an agent answers to its alerts.
#[derive(Deserialize)]
struct Told {
    alerts: Vec<Ruling>,
}

impl Router {
    /// A dispatcher as the configuration has it.
    ///
    /// # Errors
    ///
    /// As [`Client::open`].
    pub fn open(config: &Dispatch) -> anyhow::Result<Self> {
        let office = Office {
            agents: Agents::new(config),
            client: Client::open(&config.client())?,
            config: config.clone(),
            counts: Arc::new(Counts::new(&OF_DISPATCH)),
            tally: Arc::default(),
        };
        Ok(Self {
            office: Arc::new(office),
            turn: Arc::default(),
        })
    }

    /// What it counts.
    pub fn counted(&self) -> (Arc<Counts>, Arc<Tally>) {
        let Office { counts, tally, .. } = &*self.office;
        (Arc::clone(counts), Arc::clone(tally))
    }

    /// Asks all agents how they are, for those who only look at the numbers.
    pub async fn look_around(&self) {
        self.office.census().await;
    }
}

impl Receiver for Router {
    type Ruling = Ruling;

    /// What was begun is led to its end, though the sender may have gone: else the next
    /// payload would be decided on while an agent has the last one under way.
    async fn receive(&self, payload: Payload) -> Receipt<Ruling> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let office = Arc::clone(&self.office);
        let decided = tokio::spawn(async move {
            let receipt = office.dispatch(payload).await;
            drop(turn);
            receipt
        });
        Receipt::of_task(decided.await)
    }

    fn count(&self, code: u16, truncated: u64) {
        self.office.counts.request(code, truncated);
    }
}

impl Office {
    async fn census(&self) -> (Census, Brake) {
        let places = self.agents.places().await;
        let census = Census::take(&self.client, places).await;
        let brake = Brake::of(&self.config, &census);
        self.tally.set(&census, brake);
        (census, brake)
    }

    async fn dispatch(&self, payload: Payload) -> Receipt<Ruling> {
        let until = Instant::now() + BEGUN_WITHIN;
        let (census, brake) = self.census().await;
        let (letters, mut rulings) = sort(&payload.alerts, &self.config.node_labels, &census);
        rulings.extend(
            self.deliver(&payload.group_key, letters, brake, until)
                .await,
        );
        for ruling in &rulings {
            self.counts.alert(ruling.decision);
            if let Some(alert) = payload.alerts.iter().find(|alert| ruling.is_on(alert)) {
                ruling.tell(alert);
            }
        }
        let again = rulings.iter().any(|it| it.decision.is_passing());
        Receipt {
            alerts: rulings,
            again,
        }
    }

    /// Letters that can begin nothing go at once; of the others as many at a time as may
    /// begin something, until so many have or there are no more.
    async fn deliver(
        &self,
        group: &str,
        letters: Vec<Letter>,
        mut brake: Brake,
        until: Instant,
    ) -> Vec<Ruling> {
        let (mut waiting, mut now): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(Letter::may_begin);
        let mut rulings = Vec::new();
        loop {
            let is_late = Instant::now() >= until;
            let next = if is_late {
                0
            } else {
                waiting.len().min(brake.free())
            };
            now.extend(waiting.drain(..next));
            if now.is_empty() {
                break;
            }
            for (letter, told) in self.send(group, std::mem::take(&mut now)).await {
                if letter.may_begin() && told.iter().any(may_have_begun) {
                    brake.used += 1;
                }
                rulings.extend(told);
            }
        }
        for letter in waiting {
            rulings.extend(self.hold_back(group, letter, brake).await);
        }
        rulings
    }

    /// What is resolved is never braked.
    async fn hold_back(&self, group: &str, letter: Letter, brake: Brake) -> Vec<Ruling> {
        let node = letter.node.clone();
        let (harmless, held_back) = letter.split();
        let (decision, why) = if brake.free() == 0 {
            let why = format!(
                "{} nodes are under treatment or do not answer, and {} may be",
                brake.used, brake.most
            );
            (Decision::Braked, why)
        } else {
            let why = "the other nodes of its payload took all the time";
            (Decision::NotYet, why.to_owned())
        };
        let held_back = held_back.iter();
        let mut rulings: Vec<_> = held_back
            .map(|alert| on(alert, &node, decision, &why))
            .collect();
        for (_, told) in self.send(group, harmless.into_iter().collect()).await {
            rulings.extend(told);
        }
        rulings
    }

    async fn send(&self, group: &str, letters: Vec<Letter>) -> Vec<(Letter, Vec<Ruling>)> {
        let sent = letters.into_iter().map(|letter| async {
            let told = self.send_one(group, &letter).await;
            (letter, told)
        });
        stream::iter(sent).buffered(AT_ONCE).collect().await
    }

    async fn send_one(&self, group: &str, letter: &Letter) -> Vec<Ruling> {
        let payload = Payload::of(group, letter.alerts.clone());
        let json = match serde_json::to_vec(&payload) {
            Ok(json) => Bytes::from(json),
            Err(error) => return letter.all(Decision::Rejected, &error.to_string()),
        };
        let webhook = &letter.place.webhook;
        let answer = match self.client.post(webhook, PATH, json).await {
            Ok(answer) => answer,
            Err(why) => return letter.all(Decision::Unreachable, &why),
        };
        match serde_json::from_slice::<Told>(&answer.body) {
            Ok(Told { alerts }) => letter
                .alerts
                .iter()
                .map(|alert| passed_on(alert, &letter.node, &alerts))
                .collect(),
            Err(_) => {
                let said = String::from_utf8_lossy(&answer.body);
                let why = format!("{webhook} answers {}: {}", answer.code, said.trim());
                let decision = if answer.code == StatusCode::SERVICE_UNAVAILABLE {
                    Decision::Unreachable
                } else {
                    Decision::Rejected
                };
                letter.all(decision, &why)
            }
        }
    }
}

/// What the agent says of an alert.
fn passed_on(alert: &Alert, node: &str, told: &[Ruling]) -> Ruling {
    match told.iter().find(|ruling| ruling.is_on(alert)) {
        Some(ruling) => Ruling {
            node: Some(node.to_owned()),
            ..ruling.clone()
        },
        None => on(
            alert,
            node,
            Decision::Rejected,
            "its agent says nothing of it",
        ),
    }
}

/// An agent that did not answer in time may have begun all the same.
fn may_have_begun(ruling: &Ruling) -> bool {
    matches!(ruling.decision, Decision::Begun | Decision::Unreachable)
}
