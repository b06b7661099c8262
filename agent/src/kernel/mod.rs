//! Facts of the kernel, and the few ways in which the agent touches it.

pub mod addresses;
pub mod bpf;
mod btf;
pub mod cgroup;
mod collect;
mod config;
pub mod conntrack;
pub mod facts;
pub mod interfaces;
pub mod ipvs;
mod kallsyms;
pub mod machine;
pub mod modules;
pub mod mounts;
pub mod netns;
pub mod pressure;
#[cfg(test)]
pub mod recorded;
pub mod sleepers;
mod symbols;
pub mod sysctl;

pub use collect::collect;
pub use facts::{Fact, KernelFacts};

/// For fuzzing.
#[cfg(any(test, fuzzing))]
pub const FUZZ: [&crate::fuzz::Parser; 11] = [
    &btf::FUZZ,
    &cgroup::FUZZ,
    &config::FUZZ,
    &conntrack::FUZZ_NETLINK,
    &conntrack::FUZZ_STAT,
    &ipvs::FUZZ,
    &kallsyms::FUZZ,
    &machine::FUZZ,
    &mounts::FUZZ,
    &pressure::FUZZ,
    &sleepers::FUZZ,
];

/// Has the allocator keep little of what is freed. To be called before there is a thread.
///
/// By itself glibc has a heap for each thread, of which [`return_free_memory`] would not
/// get back the end, and learns from each large block that is freed to keep larger ones.
pub fn keep_little_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: take integers. A refusal leaves all as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // What glibc begins with: a larger block is given back as soon as it is freed.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Gives memory that was freed, and that the allocator would keep, back to the kernel.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
