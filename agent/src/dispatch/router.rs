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
    AgentPoll, Agents, Dispatch, NodeGauges,
    batch::{Batch, on, sort},
    counts::OF_DISPATCH,
    limit::ConcurrencyLimit,
};
use crate::{
    http::Client,
    webhook::{Alert, AlertOutcome, Counts, Decision, PATH, Payload, Receipt, Receiver},
};

/// Agents that are written to at a time.
const AT_ONCE: usize = 32;

/// The dispatcher. Between counting who is under treatment and the last answer of those
/// that were written to, nobody else is written to.
#[derive(Debug)]
pub struct Router {
    inner: Arc<Inner>,
    /// Whoever has it may have something begun.
    turn: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct Inner {
    config: Dispatch,
    agents: Agents,
    client: Client,
    counts: Arc<Counts>,
    gauges: Arc<NodeGauges>,
}

/// Later than this after a payload came, no further agent is written to. With an answer that
/// is still awaited then, its sender is answered before the connection is closed.
const BEGUN_WITHIN: Duration = Duration::from_secs(15);

/// What an agent answers to its alerts.
#[derive(Deserialize)]
struct AlertsResponse {
    alerts: Vec<AlertOutcome>,
}

impl Router {
    /// A dispatcher as the configuration has it.
    ///
    /// # Errors
    ///
    /// As [`Client::open`].
    pub fn open(config: &Dispatch) -> anyhow::Result<Self> {
        let inner = Inner {
            agents: Agents::new(config),
            client: Client::open(&config.client())?,
            config: config.clone(),
            counts: Arc::new(Counts::new(&OF_DISPATCH)),
            gauges: Arc::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            turn: Arc::default(),
        })
    }

    /// What it counts.
    pub fn counted(&self) -> (Arc<Counts>, Arc<NodeGauges>) {
        let Inner { counts, gauges, .. } = &*self.inner;
        (Arc::clone(counts), Arc::clone(gauges))
    }

    /// Asks all agents how they are, for those who only look at the numbers.
    pub async fn look_around(&self) {
        self.inner.poll().await;
    }
}

impl Receiver for Router {
    type AlertOutcome = AlertOutcome;

    /// What was begun is led to its end, though the sender may have gone: else the next
    /// payload would be decided on while an agent has the last one under way.
    async fn receive(&self, payload: Payload) -> Receipt<AlertOutcome> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let inner = Arc::clone(&self.inner);
        let decided = tokio::spawn(async move {
            let receipt = inner.dispatch(payload).await;
            drop(turn);
            receipt
        });
        Receipt::of_task(decided.await)
    }

    fn count(&self, code: u16, truncated: u64) {
        self.inner.counts.request(code, truncated);
    }
}

impl Inner {
    async fn poll(&self) -> (AgentPoll, ConcurrencyLimit) {
        let addresses = self.agents.addresses().await;
        let poll = AgentPoll::take(&self.client, addresses).await;
        let limit = ConcurrencyLimit::of(&self.config, &poll);
        self.gauges.set(&poll, limit);
        (poll, limit)
    }

    async fn dispatch(&self, payload: Payload) -> Receipt<AlertOutcome> {
        let until = Instant::now() + BEGUN_WITHIN;
        let (poll, limit) = self.poll().await;
        let (batches, mut outcomes) = sort(&payload.alerts, &self.config.node_labels, &poll);
        outcomes.extend(
            self.deliver(&payload.group_key, batches, limit, until)
                .await,
        );
        for outcome in &outcomes {
            self.counts.alert(outcome.decision);
            if let Some(alert) = payload.alerts.iter().find(|alert| outcome.is_on(alert)) {
                outcome.tell(alert);
            }
        }
        let again = outcomes.iter().any(|it| it.decision.is_passing());
        Receipt {
            alerts: outcomes,
            again,
        }
    }

    /// Batches that can begin nothing go at once; of the others as many at a time as may
    /// begin something, until so many have or there are no more.
    async fn deliver(
        &self,
        group: &str,
        batches: Vec<Batch>,
        mut limit: ConcurrencyLimit,
        until: Instant,
    ) -> Vec<AlertOutcome> {
        let (mut waiting, mut now): (Vec<_>, Vec<_>) =
            batches.into_iter().partition(Batch::may_begin);
        let mut outcomes = Vec::new();
        loop {
            let is_late = Instant::now() >= until;
            let next = if is_late {
                0
            } else {
                waiting.len().min(limit.free())
            };
            now.extend(waiting.drain(..next));
            if now.is_empty() {
                break;
            }
            for (batch, decided) in self.send(group, std::mem::take(&mut now)).await {
                if batch.may_begin() && decided.iter().any(may_have_begun) {
                    limit.used += 1;
                }
                outcomes.extend(decided);
            }
        }
        for batch in waiting {
            outcomes.extend(self.hold_back(group, batch, limit).await);
        }
        outcomes
    }

    /// What is resolved is never rate_limited.
    async fn hold_back(
        &self,
        group: &str,
        batch: Batch,
        limit: ConcurrencyLimit,
    ) -> Vec<AlertOutcome> {
        let node = batch.node.clone();
        let (harmless, held_back) = batch.split();
        let (decision, why) = if limit.free() == 0 {
            let why = format!(
                "{} nodes are under treatment or do not answer, and {} may be",
                limit.used, limit.most
            );
            (Decision::RateLimited, why)
        } else {
            let why = "the other nodes of its payload took all the time";
            (Decision::NotYet, why.to_owned())
        };
        let held_back = held_back.iter();
        let mut outcomes: Vec<_> = held_back
            .map(|alert| on(alert, &node, decision, &why))
            .collect();
        for (_, decided) in self.send(group, harmless.into_iter().collect()).await {
            outcomes.extend(decided);
        }
        outcomes
    }

    async fn send(&self, group: &str, batches: Vec<Batch>) -> Vec<(Batch, Vec<AlertOutcome>)> {
        let sent = batches.into_iter().map(|batch| async {
            let decided = self.send_one(group, &batch).await;
            (batch, decided)
        });
        stream::iter(sent).buffered(AT_ONCE).collect().await
    }

    async fn send_one(&self, group: &str, batch: &Batch) -> Vec<AlertOutcome> {
        let payload = Payload::of(group, batch.alerts.clone());
        let json = match serde_json::to_vec(&payload) {
            Ok(json) => Bytes::from(json),
            Err(error) => return batch.all(Decision::Rejected, &error.to_string()),
        };
        let webhook = &batch.address.webhook;
        let answer = match self.client.post(webhook, PATH, json).await {
            Ok(answer) => answer,
            Err(why) => return batch.all(Decision::Unreachable, &why),
        };
        match serde_json::from_slice::<AlertsResponse>(&answer.body) {
            Ok(AlertsResponse { alerts }) => batch
                .alerts
                .iter()
                .map(|alert| passed_on(alert, &batch.node, &alerts))
                .collect(),
            Err(_) => {
                let body = String::from_utf8_lossy(&answer.body);
                let why = format!("{webhook} answers {}: {}", answer.code, body.trim());
                let decision = if answer.code == StatusCode::SERVICE_UNAVAILABLE {
                    Decision::Unreachable
                } else {
                    Decision::Rejected
                };
                batch.all(decision, &why)
            }
        }
    }
}

/// What the agent says of an alert.
fn passed_on(alert: &Alert, node: &str, decided: &[AlertOutcome]) -> AlertOutcome {
    match decided.iter().find(|outcome| outcome.is_on(alert)) {
        Some(outcome) => AlertOutcome {
            node: Some(node.to_owned()),
            ..outcome.clone()
        },
        None => on(
            alert,
            node,
            Decision::Rejected,
            "its agent does not report it",
        ),
    }
}

/// An agent that did not answer in time may have begun all the same.
fn may_have_begun(outcome: &AlertOutcome) -> bool {
    matches!(outcome.decision, Decision::Begun | Decision::Unreachable)
}
