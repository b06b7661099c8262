//! ABI of `listen_overflow`: connection requests that a full listener drops.

use crate::shared::{abi, label_values, losses, offsets};

/// Where the members lie in the structures of the running kernel, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `sock.sk_ack_backlog`: connections that wait for `accept`, 32 bits.
    pub backlog: u32,
    /// `sock.sk_max_ack_backlog`: how many may wait, 32 bits.
    pub max_backlog: u32,
    /// `sock.__sk_common.skc_num`: local port in host order, 16 bits.
    pub port: u32,
    /// `sock.__sk_common.skc_net.net`: pointer to the network namespace.
    pub net: u32,
    /// `net.ns.inum`: the number that `/proc/<pid>/ns/net` shows, 32 bits.
    pub net_inum: u32,
}

/// A port on which a process listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Listener {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host order.
    pub port: u32,
}

label_values! {
    /// Why a drop is missing from the counts.
    pub enum Loss {
        /// Kernel memory could not be read.
        Read = "read",
        /// The map of listeners took no more.
        Listener = "listener",
    }
}

/// All counts of one CPU since the probe was attached.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Totals {
    /// Events lost, by [`Loss`].
    pub lost: [u64; Loss::ALL.len()],
}

losses!(Totals, Loss);
offsets!(Offsets);

abi!(Offsets, Listener, Totals);
