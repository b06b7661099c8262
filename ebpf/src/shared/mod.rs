//! What the probes of every ailment have in common.

pub mod histogram;

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

#[cfg(target_arch = "bpf")]
pub use self::{
    atomic::add,
    context::context_id,
    marks::Marks,
    reads::{Part, global, read, read_typed, untyped},
    stacks::Stacks,
};

/// Marks a plain structure of the ABI as one that the agent may read out of a
/// map or write into a global: no padding, no pointer, any bit pattern valid.
#[macro_export]
macro_rules! abi {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, built of integers only, without padding.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $type {}
        )+
    };
}
