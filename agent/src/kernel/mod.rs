//! Facts of the kernel, and the few ways in which the agent touches it.

pub mod bpf;
mod btf;
mod collect;
pub mod conntrack;
pub mod facts;
pub mod modules;
mod symbols;
pub mod sysctl;

pub use collect::collect;
pub use facts::{Fact, Function, KernelFacts, MemberPath, Needs};
