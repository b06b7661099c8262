//! When a connection is dead, and its entry stands in the way of the next one. Pure.

use std::time::Duration;

use crate::kernel::{
    conntrack::{TcpEntry, TcpState},
    ipvs::State,
};

/// As long as this a FIN may wait for its acknowledgement: Linux repeats it four times
/// in it, even across the slowest usual path (`TCP_RTO_MIN` 0.2 s, doubled each time).
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Why a connection is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// One side has reset it, and conntrack believed it.
    Reset = 0,
    /// Both sides have sent a FIN, and conntrack waits for the last acknowledgement.
    LastAckLost = 1,
    /// Its drained server has sent a FIN, which nobody acknowledges.
    FinUnanswered = 2,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: a SYN replaces it already.
    Open,
    /// Nothing: it may be alive.
    Alive,
    /// To look again, when it has been so for [`PATIENCE`].
    Unsure,
    /// To open it.
    Dead(Reason),
}

impl Reason {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Reset, Self::LastAckLost, Self::FinUnanswered];

    /// The value of the metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::LastAckLost => "last_ack_lost",
            Self::FinUnanswered => "fin_unanswered",
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Reset => "it was reset",
            Self::LastAckLost => "both sides closed it, and the last acknowledgement was lost",
            Self::FinUnanswered => "its drained server closed it, and the client is gone",
        }
    }
}

/// Given how IPVS has a connection, for how long it has had it so, whether its
/// destination is drained, and how conntrack has it.
///
/// IPVS looks at flags alone, conntrack at sequence numbers too. What conntrack has as
/// established is therefore alive, whatever IPVS has taken a stray reset for.
pub(super) fn judge(ipvs: State, since: Duration, is_drained: bool, entry: &TcpEntry) -> Verdict {
    let dead = |reason| Verdict::Dead(reason);
    let after_a_while = |reason| {
        if since < PATIENCE {
            Verdict::Unsure
        } else {
            Verdict::Dead(reason)
        }
    };
    match (ipvs, entry.state) {
        _ if entry.is_open() => Verdict::Open,
        (State::Close | State::TimeWait, TcpState::Close) => dead(Reason::Reset),
        (State::TimeWait, TcpState::LastAck | TcpState::TimeWait) => dead(Reason::LastAckLost),
        // One of the FINs was not where conntrack expected it.
        (State::TimeWait, TcpState::FinWait | TcpState::CloseWait) => {
            after_a_while(Reason::LastAckLost)
        }
        // IPVS is so by the server's FIN alone, conntrack as long as nobody has
        // acknowledged it: a repeated FIN is LAST_ACK to it, whoever repeats it. A
        // destination that is not drained gets the SYN, and answers.
        (State::FinWait, TcpState::FinWait | TcpState::LastAck) if is_drained => {
            after_a_while(Reason::FinUnanswered)
        }
        _ => Verdict::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::conntrack::TcpTuple;

    const NOW: Duration = Duration::ZERO;

    fn entry(state: TcpState, closing: bool) -> TcpEntry {
        TcpEntry {
            tuple: TcpTuple {
                client: "10.1.0.2:20000".parse().unwrap(),
                server: "10.96.0.1:8000".parse().unwrap(),
            },
            state,
            closing,
        }
    }

    #[test]
    fn what_was_reset_is_dead_and_what_a_syn_replaces_is_left() {
        let reset = entry(TcpState::Close, false);
        let verdict = judge(State::Close, NOW, false, &reset);
        assert_eq!(verdict, Verdict::Dead(Reason::Reset));
        let open = entry(TcpState::Close, true);
        assert_eq!(judge(State::Close, NOW, false, &open), Verdict::Open);
        let closed = entry(TcpState::TimeWait, true);
        assert_eq!(judge(State::TimeWait, NOW, false, &closed), Verdict::Open);
    }

    #[test]
    fn after_both_fins_the_last_acknowledgement_is_not_waited_for() {
        let waiting = entry(TcpState::LastAck, true);
        let verdict = judge(State::TimeWait, NOW, false, &waiting);
        assert_eq!(verdict, Verdict::Dead(Reason::LastAckLost));
        // IPVS has not seen the second.
        for ipvs in [State::FinWait, State::Other] {
            assert_eq!(judge(ipvs, PATIENCE, false, &waiting), Verdict::Alive);
        }
    }

    #[test]
    fn one_fin_of_a_drained_server_is_waited_for_and_of_another_left() {
        for state in [TcpState::FinWait, TcpState::LastAck] {
            let half = entry(state, true);
            let verdict = |since, drained| judge(State::FinWait, since, drained, &half);
            assert_eq!(verdict(NOW, true), Verdict::Unsure);
            assert_eq!(
                verdict(PATIENCE, true),
                Verdict::Dead(Reason::FinUnanswered)
            );
            assert_eq!(verdict(PATIENCE, false), Verdict::Alive);
        }
        // The client has acknowledged it, and may have more to say.
        let answered = entry(TcpState::CloseWait, true);
        let verdict = judge(State::FinWait, PATIENCE, true, &answered);
        assert_eq!(verdict, Verdict::Alive);
    }

    #[test]
    fn what_conntrack_has_as_established_is_alive_whatever_ipvs_thinks() {
        for state in [TcpState::Established, TcpState::SynSent, TcpState::SynRecv] {
            for ipvs in [State::FinWait, State::TimeWait, State::Close, State::Other] {
                let verdict = judge(ipvs, 10 * PATIENCE, true, &entry(state, false));
                assert_eq!(verdict, Verdict::Alive, "{ipvs:?} {state:?}");
            }
        }
    }
}
