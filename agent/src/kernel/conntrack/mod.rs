//! Reading the connection tracking table without BPF.

mod namespaces;
mod snapshot;
mod stat;

pub use namespaces::{Namespace, Namespaces};
pub use snapshot::{Snapshot, TableState, snapshot};
pub use stat::{Stat, read_stat};

/// Inode number of this process's network namespace, as `/proc/self/ns/net` shows.
///
/// # Errors
///
/// Where the link cannot be read or is not of the form `net:[4026531840]`.
pub fn own_namespace() -> std::io::Result<u32> {
    namespaces::of("self")
}
