//! Which dispatcher may have something begun on this node.
//!
//! A dispatcher counts the nodes under treatment, and then has one more begun. That is right only
//! while no other does the same, and while nothing that an earlier one has sent is still on its way.
//! So each dispatcher has a number, a later one mostly a higher one. Before it counts, it claims
//! each agent by a payload with its number, and the agent then refuses what a lower number asks to
//! begin. What the agent took before is in the report that the dispatcher reads next.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::model::Routing;

/// The header of a dispatcher's requests that carries its number.
pub const DISPATCHER: &str = "nodemedic-dispatcher";

/// A claim that nobody renews ends after this time, so that a dispatcher that was started by
/// mistake does not rule for ever.
pub const CLAIMED_FOR: Duration = Duration::from_secs(300);

/// The claim on this agent, and how many payloads it decides on.
#[derive(Debug)]
pub struct Claims(watch::Sender<Claim>);

/// What front ends see of it.
#[derive(Clone, Debug)]
pub struct Claimed(watch::Receiver<Claim>);

#[derive(Debug, Default)]
struct Claim {
    by: Option<(u64, Instant)>,
    deciding: usize,
}

/// A payload that is being decided on, until it is dropped.
#[derive(Debug)]
pub(super) struct Deciding {
    claims: watch::Sender<Claim>,
    /// Whether it counts: to take a claim alone is no decision.
    counts: bool,
    /// The dispatcher that has the claim, where it is not the sender.
    pub(super) superseded_by: Option<u64>,
}

impl Claims {
    /// Of nobody.
    pub fn new() -> Self {
        Self(watch::Sender::new(Claim::default()))
    }

    /// For the report.
    pub fn claimed(&self) -> Claimed {
        Claimed(self.0.subscribe())
    }

    /// Called with the number of the sender before its payload is decided on, and whether that has
    /// alerts. One without a number is no dispatcher, and counts nothing.
    pub(super) fn begin(&self, from: Option<u64>, has_alerts: bool) -> Deciding {
        self.begin_at(from, has_alerts, Instant::now())
    }

    fn begin_at(&self, from: Option<u64>, has_alerts: bool, now: Instant) -> Deciding {
        let mut superseded_by = None;
        self.0.send_modify(|claim| {
            claim.deciding += usize::from(has_alerts);
            let Some(from) = from else { return };
            match claim.current(now) {
                Some((by, _)) if by > from => superseded_by = Some(by),
                Some(_) | None => claim.by = Some((from, now)),
            }
        });
        Deciding {
            claims: self.0.clone(),
            counts: has_alerts,
            superseded_by,
        }
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self::new()
    }
}

impl Claim {
    fn current(&self, now: Instant) -> Option<(u64, Duration)> {
        let (by, since) = self.by?;
        let age = now.saturating_duration_since(since);
        (age < CLAIMED_FOR).then_some((by, age))
    }
}

impl Claimed {
    /// As the report has it.
    pub fn routing(&self) -> Routing {
        let claim = self.0.borrow();
        let current = claim.current(Instant::now());
        Routing {
            dispatcher: current.map(|(by, _)| by),
            claim_age_seconds: current.map_or(0, |(_, age)| age.as_secs()),
            deciding: claim.deciding,
        }
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        let own = usize::from(self.counts);
        self.claims.send_modify(|claim| claim.deciding -= own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_dispatcher_has_the_claim_and_the_earlier_is_refused() {
        let (claims, now) = (Claims::new(), Instant::now());
        let superseded = |from, at| claims.begin_at(from, true, at).superseded_by;
        assert_eq!(superseded(Some(5), now), None);
        assert_eq!(superseded(Some(5), now), None);
        assert_eq!(superseded(Some(7), now), None);
        assert_eq!(superseded(Some(5), now), Some(7));
        // Alertmanager itself has no number.
        assert_eq!(superseded(None, now), None);
        assert_eq!(claims.claimed().routing().dispatcher, Some(7));
        let nearly = now + CLAIMED_FOR - Duration::from_secs(1);
        assert_eq!(superseded(Some(5), nearly), Some(7));
        assert_eq!(superseded(Some(5), now + CLAIMED_FOR), None);
    }

    #[test]
    fn what_is_being_decided_on_is_counted() {
        let claims = Claims::new();
        let claimed = claims.claimed();
        // A claim alone is no decision: another poll of the same dispatcher may see it under way.
        let _claim = claims.begin(Some(1), false);
        assert_eq!(claimed.routing().deciding, 0);
        let (first, second) = (claims.begin(Some(1), true), claims.begin(None, true));
        assert_eq!(claimed.routing().deciding, 2);
        drop(first);
        assert_eq!(claimed.routing().deciding, 1);
        drop(second);
        assert_eq!(claimed.routing().deciding, 0);
    }
}
