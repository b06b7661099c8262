//! A TCP entry of the table: whose it is, and how far it is.

use std::{fmt, net::SocketAddr};

/// The first direction of a flow: what its first packet had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TcpTuple {
    /// Who has sent it.
    pub client: SocketAddr,
    /// Where it was to go.
    pub server: SocketAddr,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpEntry {
    /// Whose it is.
    pub tuple: TcpTuple,
    /// How far it is.
    pub state: TcpState,
    /// Whether either side has begun to close, by a FIN. In [`TcpState::TimeWait`] and
    /// [`TcpState::Close`] this is what lets a SYN replace the entry
    /// (`IP_CT_TCP_FLAG_CLOSE_INIT`, `nf_conntrack_tcp_packet`).
    pub closing: bool,
}

/// How far an entry is: `enum tcp_conntrack`,
/// include/uapi/linux/netfilter/nf_conntrack_tcp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing is known.
    None = 0,
    /// A SYN.
    SynSent = 1,
    /// Its answer.
    SynRecv = 2,
    /// Both know.
    Established = 3,
    /// One side has sent a FIN.
    FinWait = 4,
    /// The other has acknowledged it.
    CloseWait = 5,
    /// The other has sent one too.
    LastAck = 6,
    /// That was acknowledged as well.
    TimeWait = 7,
    /// One side has reset it.
    Close = 8,
    /// Both sides have sent a SYN.
    SynSent2 = 9,
}

impl TcpEntry {
    /// Whether a SYN of the same client replaces the entry, so that nobody takes the new
    /// connection for the old one.
    pub const fn is_open(&self) -> bool {
        self.closing && matches!(self.state, TcpState::TimeWait | TcpState::Close)
    }
}

impl TcpState {
    const ALL: [Self; 10] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];

    /// By its number.
    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// As `conntrack -L` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }
}

impl fmt::Display for TcpTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.client, self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_kernels_numbers() {
        for (number, state) in TcpState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
        }
        assert_eq!(TcpState::of(8), Some(TcpState::Close));
        assert_eq!(TcpState::of(10), None);
    }
}
