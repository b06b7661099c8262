//! What the probes of all ailments have in common.

pub mod histogram;

mod abi;
mod counter;

#[cfg(target_arch = "bpf")]
mod address_cache;
#[cfg(target_arch = "bpf")]
mod address_set;
#[cfg(target_arch = "bpf")]
pub mod calls;
#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod object;
#[cfg(target_arch = "bpf")]
mod reads;
#[cfg(target_arch = "bpf")]
mod scheduler;
#[cfg(target_arch = "bpf")]
mod stacks;

pub(crate) use self::abi::{abi, label_values, losses, offsets};
pub use self::{abi::UNKNOWN, counter::add_exclusive};

#[cfg(target_arch = "bpf")]
pub use self::{
    address_cache::{AddressCache, SLOTS, Slot},
    address_set::AddressSet,
    context::{context_id, cpu, now_ns, thread},
    counter::add_atomic,
    maps::{Losses, PerCpu, get_or_insert, value_of},
    reads::{Part, global, read, read_typed, untyped},
    stacks::Stacks,
};
