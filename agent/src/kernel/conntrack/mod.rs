//! The connection tracking table without BPF: read as a whole, and single entries changed.

mod ctnetlink;
mod events;
mod namespaces;
mod snapshot;
mod stat;
mod tcp;

pub use ctnetlink::{Ctnetlink, MISSING as NETLINK_IS_MISSING, is_there as netlink_is_there};
pub use events::{Event, Resets};
pub use namespaces::{Namespace, count};
#[cfg(any(test, fuzzing))]
pub(super) use snapshot::FUZZ as FUZZ_NETLINK;
pub use snapshot::{Snapshot, TableState, snapshot};
#[cfg(any(test, fuzzing))]
pub(super) use stat::FUZZ as FUZZ_STAT;
pub use stat::{Counter, Stat, read_stat};
pub use tcp::{TcpEntry, TcpState, TcpTuple};
