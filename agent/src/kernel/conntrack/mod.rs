//! Reading the connection tracking table without BPF.

mod namespaces;
mod snapshot;
mod stat;

pub use namespaces::{Namespace, count};
pub use snapshot::{Snapshot, TableState, snapshot};
pub use stat::{Stat, read_stat};
