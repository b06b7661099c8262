//! Facts of the kernel, and the few ways in which the agent touches it.

pub mod bpf;
mod btf;
mod collect;
pub mod conntrack;
pub mod facts;
pub mod ipvs;
pub mod modules;
pub mod netns;
#[cfg(test)]
pub mod recorded;
mod symbols;
pub mod sysctl;

pub use collect::collect;
pub use facts::{Fact, Function, KernelFacts, MemberPath, Needs};

/// Gives memory that was freed, and that the allocator would keep, back to the kernel.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
