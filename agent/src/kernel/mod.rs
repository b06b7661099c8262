//! Facts of the kernel, and the few ways in which the agent touches it.

pub mod facts;

pub use facts::{Fact, Function, KernelFacts, MemberPath, Needs};
