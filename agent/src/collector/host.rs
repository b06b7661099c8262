//! The kernel as a collector asks it, so that a test can be one.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::Collector;
use crate::{
    kernel::{self, KernelFacts, modules},
    model::Needs,
    node::Directory,
    wakeup::WakeUp,
};

/// For how long facts are the same for all who ask, by the time that it took to collect them.
/// Ailments attach one after the other, and what takes long is to read the kernel's symbols and
/// types, whoever wants to know of them.
const SAME: u32 = 10;

/// Answers what an ailment has to know before it attaches, and when to do so anew.
pub trait Host: fmt::Debug + Send + Sync {
    /// Facts of now, or of a moment ago. Takes a good part of a second.
    fn facts(&self) -> KernelFacts;

    /// A number that differs for each load of a module, `None` while it is not
    /// loaded as a module. Cheap: asked for each tick.
    fn module_instance(&self, module: &str) -> Option<u64>;

    /// How many use a loaded module, the agent's own programs aside.
    fn module_users(&self, module: &str) -> Option<u32>;

    /// What pods and containers are called.
    fn directory(&self) -> &Directory;

    /// How a probe asks for a reading before its time.
    fn wakeup(&self) -> &WakeUp;
}

/// The kernel that this process runs on, and who lives on it.
#[derive(Debug)]
pub struct RunningKernel {
    /// What all who may ask need.
    needs: Vec<Needs>,
    known: Mutex<Option<Known>>,
    directory: Directory,
    wakeup: WakeUp,
}

/// Facts, and what they hold for.
#[derive(Debug)]
struct Known {
    until: Instant,
    /// Which load of each module the facts are about, and whether it was in use.
    modules: Vec<(Option<u64>, bool)>,
    facts: KernelFacts,
}

impl RunningKernel {
    /// For these to ask.
    pub fn of<'w>(collectors: impl IntoIterator<Item = &'w dyn Collector>) -> Self {
        let collectors = collectors.into_iter();
        Self {
            needs: collectors
                .map(|collector| collector.about().needs)
                .collect(),
            known: Mutex::default(),
            directory: Directory::default(),
            wakeup: WakeUp::default(),
        }
    }

    /// With somebody who knows names.
    #[must_use]
    pub fn with(self, directory: Directory) -> Self {
        Self { directory, ..self }
    }

    fn modules(&self) -> Vec<(Option<u64>, bool)> {
        let modules = self.needs.iter().flat_map(|needs| needs.modules);
        let in_use = |module| modules::users(module).is_some_and(|users| users > 0);
        modules
            .map(|module| (modules::instance(module), in_use(module)))
            .collect()
    }
}

impl Host for RunningKernel {
    fn facts(&self) -> KernelFacts {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let modules = self.modules();
        let began = Instant::now();
        let same = |known: &&mut Known| began < known.until && known.modules == modules;
        if let Some(known) = known.as_mut().filter(same) {
            return known.facts.clone();
        }
        let facts = kernel::collect(&self.needs);
        *known = Some(Known {
            until: Instant::now() + began.elapsed() * SAME,
            modules,
            facts: facts.clone(),
        });
        facts
    }

    fn module_instance(&self, module: &str) -> Option<u64> {
        modules::instance(module)
    }

    fn module_users(&self, module: &str) -> Option<u32> {
        modules::users(module)
    }

    fn directory(&self) -> &Directory {
        &self.directory
    }

    fn wakeup(&self) -> &WakeUp {
        &self.wakeup
    }
}
