//! Decides which agents get what, one payload after the other.

use std::{
    collections::HashMap,
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
    ask::excerpt,
    batch::{Batch, on, sort},
    claim::{Claim, Standing},
    counts::OF_DISPATCH,
    limit::ConcurrencyLimit,
    reserved::Reserved,
};
use crate::{
    http::Client,
    webhook::{
        Alert, AlertOutcome, Counts, DISPATCHER, Decision, PATH, Payload, Receipt, Receiver,
        tell_all,
    },
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
    standing: Standing,
    reserved: Reserved,
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
            standing: Standing::new(),
            reserved: Reserved::default(),
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

    /// Why the agents are not known; `None` once they were.
    pub fn unknown_agents(&self) -> Option<String> {
        self.inner.agents.unknown()
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
    async fn receive(&self, payload: Payload, _: Option<u64>) -> Receipt<AlertOutcome> {
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
        let set = self.agents.current().await;
        let ask = |number| AgentPoll::take(&self.client, set.clone(), number);
        let mut poll = ask(self.standing.number()).await;
        if self.standing.note(&poll) {
            poll = ask(self.standing.number()).await;
            self.standing.note(&poll);
        }
        let limit = ConcurrencyLimit::of(&self.config, &poll, &self.reserved);
        self.gauges.set(&poll, limit);
        (poll, limit)
    }

    async fn dispatch(&self, payload: Payload) -> Receipt<AlertOutcome> {
        let until = Instant::now() + BEGUN_WITHIN;
        let (poll, limit) = self.poll().await;
        let (batches, undelivered) = sort(payload.alerts, &self.config.node_labels, &poll);
        let wave = Wave {
            group: &payload.group_key,
            held: held(&poll),
            refusal: refusal(&poll),
        };
        let mut outcomes = self.deliver(&wave, batches, limit, until).await;
        outcomes.extend(undelivered);
        for outcome in &outcomes {
            self.counts.alert(outcome.decision);
        }
        tell_all(&outcomes, |_| true);
        Receipt::of(outcomes)
    }

    /// Batches that can begin nothing go at once; of the others as many at a time as may
    /// begin something, until so many have or there are no more.
    async fn deliver(
        &self,
        wave: &Wave<'_>,
        batches: Vec<Batch>,
        mut limit: ConcurrencyLimit,
        until: Instant,
    ) -> Vec<AlertOutcome> {
        let (mut waiting, mut now): (Vec<_>, Vec<_>) =
            batches.into_iter().partition(Batch::may_begin);
        let mut outcomes = Vec::new();
        loop {
            let is_late = Instant::now() >= until;
            let next = if is_late || wave.held.is_some() {
                0
            } else {
                waiting.len().min(limit.free())
            };
            now.extend(waiting.drain(..next));
            if now.is_empty() {
                break;
            }
            for (batch, decided) in self.send(wave.group, std::mem::take(&mut now)).await {
                let has_begun = decided.iter().any(|it| it.decision == Decision::Begun);
                if batch.may_begin() && (has_begun || self.reserved.contains(&batch.node)) {
                    limit.used += 1;
                }
                outcomes.extend(decided);
            }
        }
        for batch in waiting {
            outcomes.extend(self.hold_back(wave, batch, limit).await);
        }
        outcomes
    }

    /// What is resolved is never rate_limited.
    async fn hold_back(
        &self,
        wave: &Wave<'_>,
        batch: Batch,
        limit: ConcurrencyLimit,
    ) -> Vec<AlertOutcome> {
        let node = batch.node.clone();
        let (harmless, held_back) = batch.split();
        let (decision, why) = if let Some(why) = &wave.held {
            (Decision::RateLimited, why.clone())
        } else if limit.free() == 0 {
            let why = format!(
                "{} nodes are under treatment or do not answer, and {} may be{}",
                limit.used, limit.most, wave.refusal
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
        for (_, decided) in self.send(wave.group, harmless.into_iter().collect()).await {
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
        let header = (DISPATCHER, self.standing.number().into());
        if batch.fires() {
            self.reserved.sent(&batch.node);
        }
        let answer = match self.client.post(webhook, PATH, json, header).await {
            Ok(answer) => answer,
            Err(why) => return batch.all(Decision::Unreachable, &why),
        };
        match serde_json::from_slice::<AlertsResponse>(&answer.body) {
            Ok(AlertsResponse { alerts }) => {
                let decided: HashMap<_, _> = alerts.iter().map(|it| (it.id(), it)).collect();
                let is_whole = |alert: &Alert| decided.contains_key(&alert.id());
                if batch.alerts.iter().all(is_whole) {
                    self.reserved.answered(&batch.node);
                }
                let alerts = batch.alerts.iter();
                alerts
                    .map(|alert| passed_on(alert, &batch.node, decided.get(&alert.id()).copied()))
                    .collect()
            }
            Err(_) => {
                // Its gate has refused it, unless a proxy has lost the answer.
                let is_of_a_gateway =
                    answer.code.is_server_error() && answer.code != StatusCode::SERVICE_UNAVAILABLE;
                if !is_of_a_gateway {
                    self.reserved.answered(&batch.node);
                }
                let body = excerpt(&answer.body);
                let why = format!("{webhook} answers {}: {body}", answer.code);
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
fn passed_on(alert: &Alert, node: &str, decided: Option<&AlertOutcome>) -> AlertOutcome {
    match decided {
        Some(outcome) => AlertOutcome {
            node: Some(node.to_owned()),
            ailment: alert.ailment().map(str::to_owned),
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

/// What the batches of a payload have in common.
struct Wave<'a> {
    group: &'a str,
    /// Why nothing may begin, whatever the limit says.
    held: Option<String>,
    /// Why an agent counts that answers; empty for none.
    refusal: String,
}

/// Why nothing may begin: what is not known cannot be counted, and two dispatchers must not both
/// count.
fn held(poll: &AgentPoll) -> Option<String> {
    if poll.is_unknown {
        let why = poll.doubt.as_deref().unwrap_or_default();
        return Some(format!("not all agents are known: {why}"));
    }
    poll.claims().find_map(|claim| match claim {
        Claim::Other(by) => Some(format!(
            "another dispatcher (number {by}) routes alerts to the agents: run one dispatcher"
        )),
        Claim::Own | Claim::Wanted | Claim::Unsupported | Claim::Refused { .. } => None,
    })
}

fn refusal(poll: &AgentPoll) -> String {
    let refused = poll.claims().find_map(|claim| match claim {
        Claim::Refused { why } => Some(format!(
            "; an agent takes no alerts of this dispatcher: {why}"
        )),
        Claim::Own | Claim::Wanted | Claim::Unsupported | Claim::Other(_) => None,
    });
    refused.unwrap_or_default()
}
