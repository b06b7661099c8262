//! The programs, one module a hook or a pair of them, and what they have in common.

mod connection;
mod counts;
mod creation;
mod datagrams;
mod destination;
mod expiry;
mod packet;
mod schedule;
mod waiting;

pub(crate) use self::counts::TOTALS;

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;

/// `IP_VS_CONN_F_TEMPLATE` of include/uapi/linux/ip_vs.h: no connection, but what
/// persistence remembers of a client.
const CONN_F_TEMPLATE: u32 = 0x1000;
