//! That this dispatcher, and no other, has treatments begun: see [`Claims`](crate::webhook::Claims)
//! for how an agent holds to it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::SystemTime,
};

use bytes::Bytes;
use hyper::StatusCode;
use tracing::warn;

use super::{AgentAddress, AgentPoll, ask::excerpt};
use crate::{
    http::Client,
    model::Routing,
    webhook::{CLAIMED_FOR, DISPATCHER, PATH, Payload},
};

/// Whether an agent has anything begun for this dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It does, and for no other.
    Own,
    /// It does for anybody, until it has been claimed.
    Wanted,
    /// It does for a dispatcher of a higher number.
    Other(u64),
    /// It takes no alerts, or is too old to hold to a claim.
    Unsupported,
    /// It did not take the claim.
    Refused {
        /// Why.
        why: String,
    },
}

impl Claim {
    /// As a report has it.
    pub(super) fn of(routing: Option<Routing>, own: u64) -> Self {
        let Some(routing) = routing else {
            return Self::Unsupported;
        };
        let is_fresh = routing.claim_age_seconds < CLAIMED_FOR.as_secs() / 2;
        match routing.dispatcher {
            Some(by) if by > own => Self::Other(by),
            Some(by) if by == own && is_fresh => Self::Own,
            Some(_) | None => Self::Wanted,
        }
    }
}

/// Claims an agent.
pub(super) async fn claim(
    client: &Client,
    address: &AgentAddress,
    number: u64,
) -> Result<(), String> {
    let nothing = Payload::of("", Vec::new());
    let json = serde_json::to_vec(&nothing).map_err(|error| error.to_string())?;
    let header = (DISPATCHER, number.into());
    let webhook = &address.webhook;
    let answer = client
        .post(webhook, PATH, Bytes::from(json), header)
        .await?;
    match answer.code {
        StatusCode::OK => Ok(()),
        code => Err(format!(
            "{webhook} answers {code}: {}",
            excerpt(&answer.body)
        )),
    }
}

/// The number of this dispatcher, and whether it rules.
#[derive(Debug)]
pub(super) struct Standing {
    number: AtomicU64,
    /// Whether all agents have taken the claim once.
    has_ruled: AtomicBool,
    is_superseded: AtomicBool,
}

impl Standing {
    /// Of one that starts now.
    pub(super) fn new() -> Self {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            number: AtomicU64::new(since.as_micros().try_into().unwrap_or(u64::MAX)),
            has_ruled: AtomicBool::new(false),
            is_superseded: AtomicBool::new(false),
        }
    }

    /// The number.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Takes note of what the agents answered to the claim; whether to claim once more, by a higher
    /// number: a dispatcher that starts has not the highest where the clock of its predecessor was
    /// ahead. One that has ruled gives way.
    pub(super) fn note(&self, poll: &AgentPoll) -> bool {
        let others = poll.claims().filter_map(|claim| match claim {
            Claim::Other(by) => Some(*by),
            Claim::Own | Claim::Wanted | Claim::Unsupported | Claim::Refused { .. } => None,
        });
        match others.max() {
            Some(by) if !self.has_ruled.load(Ordering::Relaxed) => {
                self.number.store(by.saturating_add(1), Ordering::Relaxed);
                true
            }
            highest => {
                let is_own = poll.claims().any(|claim| *claim == Claim::Own);
                self.has_ruled.fetch_or(is_own, Ordering::Relaxed);
                self.warn(highest);
                false
            }
        }
    }

    fn warn(&self, by: Option<u64>) {
        let was = self.is_superseded.swap(by.is_some(), Ordering::Relaxed);
        if let Some(by) = by
            && !was
        {
            warn!(
                number = self.number(),
                by, "another dispatcher routes alerts to these agents: run one dispatcher"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{agent::AgentState, poll::tests::agent},
        *,
    };

    fn poll(claim: Claim) -> AgentPoll {
        let state = AgentState::Reachable {
            node: "a".to_owned(),
            also_called: Vec::new(),
            instance: Some("x".to_owned()),
            treats: false,
            decides: false,
            claim,
        };
        AgentPoll::of(vec![agent(None, state)])
    }

    #[test]
    fn a_claim_is_renewed_before_it_ends() {
        let routing = |dispatcher, claim_age_seconds| {
            Claim::of(
                Some(Routing {
                    dispatcher,
                    claim_age_seconds,
                    deciding: 0,
                }),
                7,
            )
        };
        assert_eq!(routing(None, 0), Claim::Wanted);
        assert_eq!(routing(Some(6), 0), Claim::Wanted);
        assert_eq!(routing(Some(7), 100), Claim::Own);
        assert_eq!(routing(Some(7), 200), Claim::Wanted);
        assert_eq!(routing(Some(8), 200), Claim::Other(8));
        assert_eq!(Claim::of(None, 7), Claim::Unsupported);
    }

    #[test]
    fn one_that_starts_takes_over_and_one_that_has_ruled_gives_way() {
        let later = u64::MAX - 5;
        let standing = Standing::new();
        assert!(standing.note(&poll(Claim::Other(later))));
        assert_eq!(standing.number(), later + 1);
        assert!(!standing.note(&poll(Claim::Own)));
        assert!(!standing.note(&poll(Claim::Other(later + 2))));
        assert_eq!(standing.number(), later + 1);
    }
}
