//! What the probes of every ailment have in common.

pub mod histogram;

mod abi;

#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
pub mod calls;
#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod marks;
#[cfg(target_arch = "bpf")]
pub mod memo;
#[cfg(target_arch = "bpf")]
mod object;
#[cfg(target_arch = "bpf")]
mod reads;
#[cfg(target_arch = "bpf")]
mod stacks;

pub use self::abi::UNKNOWN;
pub(crate) use self::abi::{abi, label_values, offsets};

#[cfg(target_arch = "bpf")]
pub use self::{
    atomic::add,
    context::context_id,
    marks::Marks,
    reads::{Part, global, read, read_typed, untyped},
    stacks::Stacks,
};
