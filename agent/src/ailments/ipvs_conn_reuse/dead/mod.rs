//! Conntrack entries of dead connections, opened before the next SYN of their client comes.
//!
//! IPVS drops a SYN that reaches it with a confirmed conntrack entry, and lets the old
//! connection go (ip_vs_core.c, `ip_vs_conn_uses_old_conntrack`). Conntrack, which sees
//! the SYN first, would have replaced the entry, but for connections that did not end as
//! it knows it (nf_conntrack_proto_tcp.c, `nf_conntrack_tcp_packet`, `TCP_CONNTRACK_SYN_SENT`).
//! Such an entry is *opened*: marked as that of a connection that has closed. Whatever it
//! translates it goes on translating, also for packets that come late; only the next SYN
//! is not taken for one of the old connection.
//!
//! ```text
//! conntrack's events of resets ──┐
//! IPVS's list of connections ────┴─> rule: is it dead? ──> open, within limits ──> counted
//! ```

mod allowance;
mod counters;
mod memory;
mod rule;
mod sweep;
mod sweeper;
mod switch;

pub use self::{
    counters::{Left, SweepCounters, SweepReading},
    rule::Reason,
    sweep::{Dead, Sweep},
    switch::{SWEEP_DEAD, Sweepers},
};
use super::Settings;

/// How much may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries that are opened in a second.
    pub a_second: u32,
    /// Connections that are looked at in one pass through the list, and remembered.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Settings::default().sweep_limits()
    }
}
