//! Modules: loaded, built in, or absent; which load of one this is; and whether
//! anybody uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Deref,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::{
    facts::{Fact, ModuleState, Symbol},
    symbols::{self, SymbolScope},
};

/// How often the references are looked at to see them settled, and how far apart: a
/// request takes some ten microseconds.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(1);

/// References to a module that this process's own programs hold. Locked while programs come
/// and go, which takes a while, so that each module has its own.
type References = Arc<Mutex<u32>>;

static HELD: Mutex<BTreeMap<&'static str, References>> = Mutex::new(BTreeMap::new());

/// A module that is loaded, by how far it is (`show_initstate`, kernel/module.c, from 5.18 on
/// kernel/module/sysfs.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is in use, or can be.
    Live,
    /// On its way in or out: the kernel gives programs its types only while it is live
    /// (`btf_try_get_module`, kernel/bpf/btf.c, from 5.17 on).
    Passing,
}

/// How far a module is; `None` for one that is absent or built in.
pub fn stage(module: &str) -> Option<Stage> {
    let state = fs::read_to_string(folder(module).join("initstate")).ok()?;
    Some(match state.trim() {
        "live" => Stage::Live,
        _ => Stage::Passing,
    })
}

/// Where a module's code is, found out by what `/sys/module` shows and whether a function of it
/// exists: a module that is built in shows itself there only if it has parameters.
///
/// `before` is the stage before its types and symbols were read. One that came or went meanwhile is
/// absent, as what was read of it is not whole.
pub fn state(module: &str, before: Option<Stage>, has_function: bool) -> ModuleState {
    let is_known = has_function || folder(module).exists();
    judge(before, stage(module), is_known)
}

fn judge(before: Option<Stage>, now: Option<Stage>, is_known: bool) -> ModuleState {
    match (before, now) {
        (Some(Stage::Live), _) => ModuleState::Loaded,
        (Some(Stage::Passing), _) | (None, Some(_)) => ModuleState::Absent,
        (None, None) if is_known => ModuleState::BuiltIn,
        (None, None) => ModuleState::Absent,
    }
}

/// A number that differs for each load of a module: the inode of its folder, which
/// sysfs makes anew. `None` for one that is absent, on its way in or out, or built
/// in without parameters. Cheap enough for each tick.
pub fn instance(module: &str) -> Option<u64> {
    let folder = folder(module);
    let instance = fs::metadata(&folder).ok()?.ino();
    match fs::read_to_string(folder.join("initstate")) {
        Ok(state) if state.trim() != "live" => None,
        Ok(_) | Err(_) => Some(instance),
    }
}

/// How many others use a module that is loaded: modules, sockets, programs of other
/// processes. Those that are [`Held`] here do not count.
pub fn users(module: &str) -> Option<u32> {
    let held = lock(&HELD).get(module).map(Arc::clone).unwrap_or_default();
    let own = lock(&held);
    Some(references(module)?.saturating_sub(*own))
}

/// Programs on a module's functions, which keep it from being unloaded for as long as
/// they live. How many references that makes differs by kernel and hook, so it is looked
/// at; but others come and go meanwhile.
#[derive(Debug)]
pub struct Held<T> {
    /// Taken when dropped alone.
    programs: Option<T>,
    module: &'static str,
    references: u32,
}

impl<T> Held<T> {
    /// Attaches programs to a module's functions, and asks which of these each program that is
    /// there by fentry or fexit is on. One caller at a time for each module, so that each sees the
    /// references that are its own. `each`: whether each program holds the module, and not each
    /// function; `None` where that is not known.
    pub fn hold(
        module: &'static str,
        each: Option<bool>,
        attach: impl FnOnce() -> T,
        traced: impl FnOnce(&T) -> Vec<&'static str>,
    ) -> Self {
        let held = held(module);
        let mut held = lock(&held);
        // Each look takes a while; where the rule is known none is needed.
        let look = || each.is_none().then(|| settled_references(module));
        let before = look();
        let programs = attach();
        let grown = look().zip(before);
        let grown = grown.map_or(0, |(after, before)| after.saturating_sub(before));
        let traced = traced(&programs);
        let references = own_references(each, grown, &traced);
        *held += references;
        Self {
            programs: Some(programs),
            module,
            references,
        }
    }

    /// Whether they keep the module from being unloaded, and nobody else does.
    pub fn alone(&self) -> bool {
        self.references > 0 && users(self.module) == Some(0)
    }
}

impl<T> Deref for Held<Vec<T>> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.programs.as_deref().unwrap_or_default()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let held = held(self.module);
        let mut held = lock(&held);
        drop(self.programs.take());
        *held = held.saturating_sub(self.references);
    }
}

fn held(module: &'static str) -> References {
    Arc::clone(lock(&HELD).entry(module).or_default())
}

/// What is locked here is never half changed, so a panic elsewhere does no harm to it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many references the programs on these functions hold: one a program (from 6.3 on,
/// `bpf_check_attach_target`) or one a function (before, `bpf_trampoline_module_get`). Where it is not
/// known which, by how many more there are than before.
///
/// Any other number says that the module's users have changed meanwhile, as when services
/// of IPVS were made or removed, and the most is assumed: too few would keep the module for
/// ever, and too many let it go early, to be taken again.
fn own_references(each: Option<bool>, grown: u32, traced: &[&str]) -> u32 {
    let functions = traced.iter().collect::<BTreeSet<_>>().len() as u32;
    let programs = traced.len() as u32;
    match each {
        Some(true) => programs,
        Some(false) => functions,
        None if grown == functions => functions,
        None => programs,
    }
}

/// References without those that last for a moment: each request of ipvsadm holds one.
fn settled_references(module: &str) -> u32 {
    let look = |number| {
        if number > 0 {
            thread::sleep(PAUSE);
        }
        references(module)
    };
    (0..LOOKS).filter_map(look).min().unwrap_or(0)
}

fn references(module: &str) -> Option<u32> {
    fs::read_to_string(folder(module).join("refcnt"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Whether the kernel image has such a function. It takes as long as reading all symbols.
pub fn has_function(name: &str) -> bool {
    let found = symbols::find(&BTreeSet::from([name]), SymbolScope::KernelImage, None);
    matches!(found.get(name), Some(Fact::Known(symbol)) if *symbol != Symbol::Absent)
}

/// Whether a module was built apart from the kernel it is loaded into (taint `O`,
/// Documentation/admin-guide/tainted-kernels.rst).
pub fn is_out_of_tree(module: &str) -> bool {
    fs::read_to_string(folder(module).join("taint")).is_ok_and(|taint| taint.contains('O'))
}

fn folder(module: &str) -> PathBuf {
    PathBuf::from("/sys/module").join(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_there_once_it_is_live() {
        let live = Some(Stage::Live);
        assert_eq!(judge(live, live, true), ModuleState::Loaded);
        assert_eq!(judge(None, None, true), ModuleState::BuiltIn);
        assert_eq!(judge(None, None, false), ModuleState::Absent);
    }

    /// Its types were not there to be read, though its symbols may have been.
    #[test]
    fn a_module_that_came_or_went_meanwhile_is_absent() {
        let (live, passing) = (Some(Stage::Live), Some(Stage::Passing));
        for (before, now) in [
            (None, live),
            (None, passing),
            (passing, live),
            (passing, None),
        ] {
            assert_eq!(judge(before, now, true), ModuleState::Absent);
        }
    }

    #[test]
    fn references_are_our_own_as_far_as_programs_can_hold_them() {
        let traced = ["confirm", "confirm", "destroy"];
        // One a program, and one a function.
        assert_eq!(own_references(None, 3, &traced), 3);
        assert_eq!(own_references(None, 2, &traced), 2);
        // Services were removed, or made, meanwhile.
        assert_eq!(own_references(None, 0, &traced), 3);
        assert_eq!(own_references(None, 1, &traced), 3);
        assert_eq!(own_references(None, 101, &traced), 3);
        // kprobes hold none.
        assert_eq!(own_references(None, 0, &[]), 0);
        assert_eq!(own_references(None, 3, &[]), 0);
        // Where it is known, a service that was removed meanwhile does not count: with one program
        // less than there were, the module was kept for ever.
        assert_eq!(own_references(Some(true), 2, &traced), 3);
        assert_eq!(own_references(Some(false), 3, &traced), 2);
        assert_eq!(own_references(Some(true), 3, &[]), 0);
    }
}
