//! The kernel as a ward asks it, so that a test can be one.

use std::fmt;

use crate::kernel::{self, KernelFacts, Needs};

/// Answers what an ailment has to know before it attaches, and when to do so anew.
pub trait Host: fmt::Debug + Send + Sync {
    /// Collects facts. Takes a good part of a second.
    fn facts(&self, needs: &[Needs]) -> KernelFacts;

    /// A number that differs for each load of a module, `None` while it is not
    /// loaded as a module. Cheap: asked for each tick.
    fn module_instance(&self, module: &str) -> Option<u64>;

    /// How many use a loaded module, the agent's own programs aside.
    fn module_users(&self, module: &str) -> Option<u32>;
}

/// The kernel that this process runs on.
#[derive(Clone, Copy, Debug)]
pub struct RunningKernel;

impl Host for RunningKernel {
    fn facts(&self, needs: &[Needs]) -> KernelFacts {
        kernel::collect(needs)
    }

    fn module_instance(&self, module: &str) -> Option<u64> {
        kernel::modules::instance(module)
    }

    fn module_users(&self, module: &str) -> Option<u32> {
        kernel::modules::users(module)
    }
}
