//! How many nodes may be under treatment at once.

use super::{AgentPoll, Dispatch, reserved::Reserved};

/// The limit, as one poll sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConcurrencyLimit {
    /// So many may be.
    pub(super) most: usize,
    /// So many are, or may be for all that is known.
    pub(super) used: usize,
}

impl ConcurrencyLimit {
    /// An agent that does not answer may be treating, and so may those that were sent something and
    /// have not answered to it.
    pub(super) fn of(config: &Dispatch, poll: &AgentPoll, reserved: &Reserved) -> Self {
        let unanswered = poll.idle().filter(|node| reserved.contains(node)).count();
        Self {
            most: most(config, poll.known()),
            used: poll.treating() + poll.unreachable() + unanswered,
        }
    }

    /// How many more may begin.
    pub(super) fn free(self) -> usize {
        self.most.saturating_sub(self.used)
    }
}

/// Of so many nodes. One may always be, or a small cluster could never be treated.
pub(super) fn most(config: &Dispatch, known: usize) -> usize {
    let share = known * config.max_percent / 100;
    config.max_nodes.min(share.max(1))
}

#[cfg(test)]
mod tests {
    use super::{
        super::poll::tests::{agent, gone, there},
        *,
    };

    #[test]
    fn the_lower_limit_holds_and_one_node_may_always_be() {
        let config = Dispatch {
            max_nodes: 3,
            max_percent: 10,
            ..Dispatch::default()
        };
        for (known, most_of) in [(0, 1), (1, 1), (19, 1), (20, 2), (30, 3), (1_000, 3)] {
            assert_eq!(most(&config, known), most_of, "{known}");
        }
    }

    #[test]
    fn who_was_sent_something_and_has_not_answered_counts_as_treating() {
        let config = Dispatch {
            max_nodes: 1,
            ..Dispatch::default()
        };
        let poll = |treats| AgentPoll::of(vec![agent(None, there("a", treats))]);
        let used = |poll: &AgentPoll, reserved: &Reserved| {
            ConcurrencyLimit::of(&config, poll, reserved).used
        };
        let reserved = Reserved::default();
        assert_eq!(used(&poll(false), &reserved), 0);
        reserved.sent("a");
        assert_eq!(used(&poll(false), &reserved), 1);
        // What is in its report is not counted twice.
        assert_eq!(used(&poll(true), &reserved), 1);
        reserved.answered("a");
        assert_eq!(used(&poll(false), &reserved), 0);
    }

    #[test]
    fn who_does_not_answer_counts_as_treating() {
        let config = Dispatch {
            max_nodes: 3,
            max_percent: 100,
            ..Dispatch::default()
        };
        let free = |standings: [_; 4]| {
            let agents = standings.into_iter().map(|it| agent(None, it)).collect();
            ConcurrencyLimit::of(&config, &AgentPoll::of(agents), &Reserved::default()).free()
        };
        let idle = |node| there(node, false);
        assert_eq!(free([idle("a"), idle("b"), idle("c"), idle("d")]), 3);
        assert_eq!(free([there("a", true), idle("b"), idle("c"), idle("d")]), 2);
        assert_eq!(free([there("a", true), gone(), idle("c"), idle("d")]), 1);
        assert_eq!(free([there("a", true), gone(), gone(), gone()]), 0);
    }
}
